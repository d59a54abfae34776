/* Conversations, the cache they are held in, batches, text, and what is refused. */
#include "bridge_test.h"

static void test_conversation(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t s = session(e);
    fz_params p = params(20);
    int32_t all[4096], n = fz_tokenize(e, "hello", 5, 0, 0, all, 4096);
    char text[64];
    expected(all, n, 20, text);
    CHECK(submit(e, s, "hello", &p) == FZ_OK);
    result r = finish(e, s);
    CHECK(strcmp(r.text, text) == 0);
    CHECK(r.end.reason == FZ_LENGTH && r.end.prompt_tokens == 5 && r.end.cached_tokens == 0);
    CHECK(r.end.completion_tokens == 20 && r.end.first_token_us > 0 && r.end.decode_us >= 0);
    n += 20; /* the second turn pays for its own tokens, and for the last one of the first */
    fz_stats st;
    fz_stats_get(e, &st);
    int64_t before = stub_tokens() - (st.drafted - st.draft_accepted);
    n += fz_tokenize(e, "again", 5, 0, 0, all + n, 100);
    expected(all, n, 20, text);
    CHECK(submit(e, s, "again", &p) == FZ_OK);
    r = finish(e, s);
    CHECK(strcmp(r.text, text) == 0);
    CHECK(r.end.prompt_tokens == 30 && r.end.cached_tokens == 24);
    fz_stats_get(e, &st);
    CHECK(stub_tokens() - (st.drafted - st.draft_accepted) - before == 6 + 19); /* beside drafts that were wrong */
    CHECK(fz_session_tokens(e, s) == 50);
    CHECK(fz_session_close(e, s) == FZ_OK && fz_session_close(e, s) == FZ_E_UNKNOWN);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static void test_shared_prefix(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    fz_params p = params(8);
    char prompt[600], text[64];
    int32_t all[4096];
    for (int turn = 0; turn < 6; turn++) {
        uint64_t s = session(e);
        snprintf(prompt, sizeof prompt, "%0300d question %d", 7, turn);
        int32_t n = fz_tokenize(e, prompt, (int32_t)strlen(prompt), 0, 0, all, 4096);
        expected(all, n, 8, text);
        CHECK(submit(e, s, prompt, &p) == FZ_OK);
        result r = finish(e, s);
        CHECK(strcmp(r.text, text) == 0);
        CHECK(turn == 0 ? r.end.cached_tokens == 0 : r.end.cached_tokens == 308); /* in fours */
        if (turn % 2) CHECK(fz_session_close(e, s) == FZ_OK); /* a closed session's beginning is kept */
    }
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

/* One generation in a session of its own that is closed, and parked. */
static result once(fz_engine *e, const char *prompt, int32_t count, fz_stats *st) {
    char text[64];
    int32_t all[4096], n = fz_tokenize(e, prompt, (int32_t)strlen(prompt), 0, 0, all, 4096);
    uint64_t s = session(e);
    fz_params p = params(count);
    expected(all, n, count, text);
    CHECK(submit(e, s, prompt, &p) == FZ_OK);
    result r = finish(e, s);
    CHECK(strcmp(r.text, text) == 0);
    CHECK(fz_session_close(e, s) == FZ_OK);
    do look(e, st);
    while (st->kv_tokens > 0); /* nothing runs, so nothing stays in the cache */
    return r;
}

static void test_parked(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN); /* an eighth of its context: 256 tokens */
    fz_stats st;
    char prompt[700];
    snprintf(prompt, sizeof prompt, "%0100d first", 7);
    result r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 0 && st.parked_tokens == 106 + 7 && st.parked_bytes == 4 * (113 + 1));
    snprintf(prompt, sizeof prompt, "%0100d other", 7); /* takes its beginning from there, and is parked beside it */
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 100 && st.parked_tokens == 2 * 113 && stub_states() == 2);
    snprintf(prompt, sizeof prompt, "%0100d first", 7); /* the same again: what is parked is not parked twice */
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 40 && st.parked_tokens == 2 * 113); /* 64 tokens are computed as they were before */
    snprintf(prompt, sizeof prompt, "%0100d other", 7);
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 104); /* only six were */
    snprintf(prompt, sizeof prompt, "%0100d first", 7);
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 40);
    snprintf(prompt, sizeof prompt, "x%099d first", 8); /* the one that was used longest ago goes */
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 0 && st.parked_tokens == 2 * 113);
    snprintf(prompt, sizeof prompt, "%0100d other", 7);
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 100 && st.evictions == 0);
    snprintf(prompt, sizeof prompt, "z%0299d", 9); /* alone it may be longer */
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 0 && st.parked_tokens == 307);
    snprintf(prompt, sizeof prompt, "y%0599d", 9); /* but not this long: its beginning */
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 0 && st.parked_tokens == 512);
    r = once(e, prompt, 8, &st);
    CHECK(r.end.cached_tokens == 512 && st.parked_tokens == 512);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

/* Without memory for a copy, or room for it in the cache, everything is computed again, and said so. */
static void test_not_parked(void) {
    for (int how = 1; how <= 3; how++) {
        stub_reset();
        stub_no_state(how);
        fz_engine *e = opened(&PLAIN);
        fz_stats st;
        for (int turn = 0; turn < 2; turn++) CHECK(once(e, "a prompt of some tokens", 8, &st).end.cached_tokens == 0);
        CHECK(st.parked_tokens == (how == 3 ? 30 : 0));
        CHECK(stub_misuse() == 0);
        fz_close(e);
    }
}

/* A cache that idle conversations fill: they stay, and the parked beginning is computed again. */
static void test_parked_without_room(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 640;
    fz_engine *e = opened(&o);
    fz_params p = params(8);
    fz_stats st;
    char prompt[400], text[64];
    int32_t all[4096];
    snprintf(prompt, sizeof prompt, "p%0199d", 1);
    once(e, prompt, 8, &st);
    CHECK(st.parked_tokens == 207);
    uint64_t s[3];
    for (int i = 0; i < 3; i++) {
        char other[400];
        snprintf(other, sizeof other, "%c%0149d", 'a' + i, i);
        s[i] = session(e);
        CHECK(submit(e, s[i], other, &p) == FZ_OK && finish(e, s[i]).end.cached_tokens == 0);
    }
    int32_t n = fz_tokenize(e, prompt, 200, 0, 0, all, 4096);
    expected(all, n, 8, text);
    uint64_t again = session(e);
    CHECK(submit(e, again, prompt, &p) == FZ_OK);
    result r = finish(e, again);
    CHECK(strcmp(r.text, text) == 0 && r.end.cached_tokens == 0);
    fz_stats_get(e, &st);
    CHECK(st.parked_tokens == 207 && stub_misuse() == 0);
    fz_close(e);
}

static void test_eviction(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 256;
    fz_engine *e = opened(&o);
    fz_params p = params(10);
    uint64_t s[6];
    char text[64], prompt[128];
    int32_t all[6][4096], n[6];
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 6; i++) {
            if (round == 0) s[i] = session(e), n[i] = 0;
            snprintf(prompt, sizeof prompt, "%c%060d", 'A' + i, i);
            n[i] += fz_tokenize(e, prompt, 61, 0, 0, all[i] + n[i], 100);
            expected(all[i], n[i], 10, text);
            CHECK(submit(e, s[i], prompt, &p) == FZ_OK);
            result r = finish(e, s[i]);
            CHECK(strcmp(r.text, text) == 0);
            CHECK(r.end.prompt_tokens == n[i] && r.end.cached_tokens == 0); /* evicted, recomputed, and said so */
            n[i] += 10;
        }
    fz_stats st;
    fz_stats_get(e, &st);
    CHECK(st.evictions >= 6);
    int32_t long_prompt = submit(e, s[0], "this makes the conversation longer than the context can ever be: " 
        "0123456789012345678901234567890123456789012345678901234567890123456789", &p);
    CHECK(long_prompt == FZ_E_CONTEXT);
    CHECK(fz_session_tokens(e, s[0]) == n[0]); /* refused without a trace */
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static void test_batches(void) {
    stub_reset();
    stub_decode_us(300);
    fz_engine *e = opened(&PLAIN);
    fz_params p = params(50);
    uint64_t s[10];
    char text[64], prompt[32];
    int32_t all[4096];
    for (int i = 0; i < 10; i++) s[i] = session(e);
    for (int i = 0; i < 10; i++) {
        snprintf(prompt, sizeof prompt, "prompt %d", i);
        CHECK(submit(e, s[i], prompt, &p) == FZ_OK);
    }
    CHECK(submit(e, s[0], "busy", &p) == FZ_E_BUSY);
    for (int i = 0; i < 10; i++) {
        snprintf(prompt, sizeof prompt, "prompt %d", i);
        int32_t n = fz_tokenize(e, prompt, 8, 0, 0, all, 100);
        expected(all, n, 50, text);
        result r = finish(e, s[i]);
        CHECK(strcmp(r.text, text) == 0);
    }
    CHECK(stub_widest() == 4 && stub_misuse() == 0);
    fz_close(e);
}

/* Beside a running stream: the most tokens that one decode has when `n` prompts of `len` come at once. */
static int32_t longest_beside_a_stream(int32_t n, int32_t len) {
    stub_reset();
    stub_decode_us(20000);
    fz_engine *e = opened(&PLAIN);
    fz_params p = params(12);
    uint64_t stream = session(e), s[3];
    fz_stats st;
    CHECK(submit(e, stream, "a stream", &p) == FZ_OK);
    do look(e, &st);
    while (st.decodes < 2); /* it is past its own prompt */
    char prompt[1000];
    for (int32_t i = 0; i < n; i++) {
        s[i] = session(e);
        memset(prompt, 'p' + i, (size_t)len);
        prompt[len] = 0;
        CHECK(submit(e, s[i], prompt, &p) == FZ_OK);
    }
    for (int32_t i = 0; i < n; i++) finish(e, s[i]);
    finish(e, stream);
    CHECK(stub_misuse() == 0);
    fz_close(e);
    return stub_longest();
}

/* Without calibration a chunk is of 64 tokens. */
static void test_prompts_beside_a_stream(void) {
    CHECK(longest_beside_a_stream(1, 150) <= 64 + 1);      /* in chunks */
    CHECK(longest_beside_a_stream(3, 50) == 3 * 50 + 1);   /* together: up to three chunks */
    CHECK(longest_beside_a_stream(3, 150) <= 3 * 64 + 4);  /* what is left of them, at the end */
}

static void test_queue(void) {
    stub_reset();
    stub_decode_us(2000);
    fz_options o = PLAIN;
    o.n_slots = 1;
    o.n_queue = 2;
    o.n_sessions = 5;
    fz_engine *e = opened(&o);
    fz_params p = params(1000);
    uint64_t s[5], more;
    for (int i = 0; i < 5; i++) s[i] = session(e);
    CHECK(fz_session_open(e, &more) == FZ_E_OVERLOADED);
    for (int i = 0; i < 3; i++) CHECK(submit(e, s[i], "x", &p) == FZ_OK);
    CHECK(submit(e, s[3], "x", &p) == FZ_E_OVERLOADED);
    CHECK(fz_abort(e, s[1]) == FZ_OK); /* one that waits */
    CHECK(finish(e, s[1]).end.reason == FZ_ABORTED);
    CHECK(submit(e, s[3], "x", &p) == FZ_OK);
    CHECK(fz_session_close(e, s[0]) == FZ_OK); /* the one that runs */
    fz_stats st;
    do look(e, &st);
    while (st.running + st.queued > 2);
    p.timeout_ms = 30;
    CHECK(submit(e, s[4], "y", &p) == FZ_OK); /* its time is over before its turn comes */
    result r = finish(e, s[4]);
    CHECK(r.end.reason == FZ_TIMEOUT && r.end.completion_tokens == 0);
    CHECK(fz_session_tokens(e, s[4]) == 0);
    CHECK(fz_abort(e, s[4]) == FZ_OK && fz_abort(e, 999) == FZ_E_UNKNOWN);
    CHECK(stub_misuse() == 0);
    fz_close(e); /* while two run or wait */
}

static void test_abort_in_decode(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    stub_decode_us(5000000);
    uint64_t s = session(e);
    fz_params p = params(10);
    int64_t from = fz_now_us();
    CHECK(submit(e, s, "a long prompt", &p) == FZ_OK);
    fz_stats st;
    do look(e, &st);
    while (st.running == 0);
    CHECK(fz_abort(e, s) == FZ_OK);
    CHECK(finish(e, s).end.reason == FZ_ABORTED);
    p.timeout_ms = 20;
    CHECK(submit(e, s, "another", &p) == FZ_OK);
    CHECK(finish(e, s).end.reason == FZ_TIMEOUT);
    CHECK(fz_now_us() - from < 3000000);
    stub_decode_us(0);
    p = params(5);
    int32_t all[100], n = fz_tokenize(e, "fine", 4, 0, 0, all, 100);
    char text[64];
    expected(all, n, 5, text);
    CHECK(submit(e, s, "fine", &p) == FZ_OK);
    CHECK(strcmp(finish(e, s).text, text) == 0); /* the aborted turns never were */
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static void test_failures(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t s = session(e);
    fz_params p = params(5);
    stub_fail_next(-3);
    CHECK(submit(e, s, "x", &p) == FZ_OK);
    result r = finish(e, s);
    CHECK(r.end.reason == FZ_FAILED && r.end.code == FZ_E_DECODE && r.end.message[0]);
    stub_fail_next(1); /* no room, and nothing to evict */
    CHECK(submit(e, s, "x", &p) == FZ_OK);
    r = finish(e, s);
    CHECK(r.end.reason == FZ_FAILED && r.end.code == FZ_E_CONTEXT);
    CHECK(submit(e, s, "x", &p) == FZ_OK);
    CHECK(finish(e, s).end.reason == FZ_LENGTH);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static result scripted(fz_engine *e, const char *script, fz_params p) {
    static int32_t start = STUB_SCRIPT;
    uint64_t s = session(e);
    char err[100];
    stub_script(0, script);
    CHECK(fz_submit(e, s, &start, 1, &p, err, sizeof err) == FZ_OK);
    result r = finish(e, s);
    fz_session_close(e, s);
    return r;
}

static void test_text(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    fz_params p = params(100);
    result r = scripted(e, "h\xC3\xA9llo \xF0\x9F\x94\xA5!", p);
    CHECK(r.end.reason == FZ_EOS && strcmp(r.text, "h\xC3\xA9llo \xF0\x9F\x94\xA5!") == 0);
    p.max_tokens = 8; /* ends within the fire */
    r = scripted(e, "h\xC3\xA9llo \xF0\x9F\x94\xA5!", p);
    CHECK(r.end.reason == FZ_LENGTH && strcmp(r.text, "h\xC3\xA9llo ") == 0);
    p.max_tokens = 100;
    r = scripted(e, "a\xFF\xC3z\xE2\x82", p);
    CHECK(strcmp(r.text, "a\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD") == 0);
    p.n_stop = 2;
    p.stop[0] = "<end>", p.stop_len[0] = 5;
    p.stop[1] = "\n\n", p.stop_len[1] = 2;
    r = scripted(e, "one <e <en <end> two", p);
    CHECK(r.end.reason == FZ_STOP && strcmp(r.text, "one <e <en ") == 0 && r.end.completion_tokens == 16);
    r = scripted(e, "one\n<en\n\nx", p);
    CHECK(r.end.reason == FZ_STOP && strcmp(r.text, "one\n<en") == 0);
    r = scripted(e, "one <en", p); /* the end of the text is no stop text */
    CHECK(r.end.reason == FZ_EOS && strcmp(r.text, "one <en") == 0);
    fz_close(e);
}

static void test_slow_reader(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.out_limit = 64;
    fz_engine *e = opened(&o);
    uint64_t slow = session(e), quick = session(e);
    fz_params p = params(1000);
    CHECK(submit(e, slow, "slow", &p) == FZ_OK && submit(e, quick, "quick", &p) == FZ_OK);
    result r = finish(e, quick);
    CHECK(r.len == 1000);
    fz_progress progress;
    char buf[16];
    int32_t got = fz_take(e, slow, buf, 16, &progress);
    CHECK(got == 16 && progress.more == 1 && progress.reason == FZ_RUNNING && progress.completion_tokens <= 66);
    r = finish(e, slow);
    CHECK(r.len == 1000 - 16 && r.end.reason == FZ_LENGTH);
    fz_close(e);
}

static void test_refusals(void) {
    stub_reset();
    char err[200];
    fz_engine *e = NULL;
    fz_options o = PLAIN;
    CHECK(fz_open(NULL, &o, &e, err, sizeof err) == FZ_E_INVALID);
    o.n_slots = 65;
    CHECK(fz_open("x", &o, &e, err, sizeof err) == FZ_E_INVALID && strstr(err, "n_slots is 65"));
    for (int32_t kind = 1; kind <= 2; kind++) {
        stub_no_model(kind);
        CHECK(fz_open("x", &PLAIN, &e, err, sizeof err) == FZ_E_MODEL && e == NULL);
    }
    stub_no_model(0);
    for (int32_t which = 1; which <= 2; which++) {
        stub_other_release(which);
        CHECK(fz_open("x", &PLAIN, &e, err, sizeof err) == FZ_E_MODEL && strstr(err, "another"));
    }
    stub_other_release(0);
    fz_close(NULL);
    e = opened(&PLAIN);
    uint64_t s = session(e);
    int32_t token = STUB_VOCAB, fine = 'x';
    fz_params p = params(1);
    CHECK(fz_submit(e, s, &token, 1, &p, err, sizeof err) == FZ_E_INVALID);
    CHECK(fz_submit(e, s, &fine, 0, &p, err, sizeof err) == FZ_E_INVALID);
    CHECK(fz_submit(e, 77, &fine, 1, &p, err, sizeof err) == FZ_E_UNKNOWN);
    fz_params bad[] = {p, p, p, p, p, p, p};
    bad[0].max_tokens = 0, bad[1].temperature = -1, bad[2].top_p = 0, bad[3].min_p = 2, bad[4].repeat_penalty = 0;
    bad[5].n_stop = 1, bad[6].timeout_ms = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(fz_submit(e, s, &fine, 1, &bad[i], err, sizeof err) == FZ_E_INVALID);
    CHECK(fz_take(e, s, err, 15, &(fz_progress){0}) == FZ_E_INVALID);
    CHECK(fz_token_kind(e, STUB_EOG) == 3 && fz_token_kind(e, 'x') == 0 && fz_token_kind(e, -1) == FZ_E_INVALID);
    int32_t marks[2] = {0};
    CHECK(fz_marks(e, marks, 1) == 2 && marks[0] == STUB_EOG && marks[1] == 0 && fz_marks(e, NULL, 1) == FZ_E_INVALID);
    CHECK(fz_piece(e, STUB_PAIR, 0, err, 1) == 2 && fz_meta(e, "nothing", err, 10) == -1);
    fz_shutdown(e);
    CHECK(fz_submit(e, s, &fine, 1, &p, err, sizeof err) == FZ_E_CLOSED && fz_session_open(e, &s) == FZ_E_CLOSED);
    fz_close(e);
}

void run_conversation_tests(void) {
    RUN(test_conversation);
    RUN(test_shared_prefix);
    RUN(test_parked);
    RUN(test_not_parked);
    RUN(test_parked_without_room);
    RUN(test_eviction);
    RUN(test_batches);
    RUN(test_prompts_beside_a_stream);
    RUN(test_queue);
    RUN(test_abort_in_decode);
    RUN(test_failures);
    RUN(test_text);
    RUN(test_slow_reader);
    RUN(test_refusals);
}
