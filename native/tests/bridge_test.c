/* The bridge against the stub. Prints "N passed, N failed"; the sanitizers and valgrind watch. */
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../gemma_internal.h"
#include "stub_llama.h"

static int passed, failed;
#define CHECK(what)                                                                            \
    do {                                                                                       \
        if (what) passed++;                                                                    \
        else failed++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);              \
    } while (0)

/* VERBOSE names the test on stderr, for a run that hangs; ONLY=word runs those with it in their name. */
#define RUN(test)                                                                              \
    do {                                                                                       \
        if (getenv("ONLY") && !strstr(#test, getenv("ONLY"))) break;                           \
        if (getenv("VERBOSE")) fprintf(stderr, "%s\n", #test);                                 \
        test();                                                                                \
    } while (0)

static const fz_options PLAIN = {.n_ctx = 2048, .n_threads = 1, .n_slots = 4, .n_sessions = 16, .n_queue = 8};

static fz_engine *opened(const fz_options *o) {
    char err[200] = "";
    fz_engine *e = NULL;
    if (fz_open("stub.gguf", o, &e, err, sizeof err) != FZ_OK) {
        fprintf(stderr, "fz_open: %s\n", err);
        exit(1);
    }
    return e;
}

static fz_params params(int32_t max_tokens) {
    return (fz_params){.max_tokens = max_tokens, .top_p = 1, .repeat_penalty = 1, .timeout_ms = 60000};
}

/* For a loop that waits for what it says: one that never gives way stops the others under valgrind. */
static void look(fz_engine *e, fz_stats *st) {
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    fz_stats_get(e, st);
}

static void wait_ready(fz_engine *e) {
    struct pollfd p = {.fd = fz_eventfd(e), .events = POLLIN};
    poll(&p, 1, 2000);
}

typedef struct result {
    char text[20000];
    int32_t len;
    fz_progress end;
} result;

/* Reads one session to its end; other sessions' notes stay for later reads of theirs. */
static result finish(fz_engine *e, uint64_t s) {
    result r = {.len = 0};
    for (;;) {
        int32_t n = fz_take(e, s, r.text + r.len, (int32_t)sizeof r.text - r.len - 1, &r.end);
        if (n < 0) return r;
        r.len += n;
        if (r.end.reason != FZ_RUNNING && !r.end.more) return r;
        if (n == 0) {
            uint64_t ids[16];
            wait_ready(e);
            fz_ready(e, ids, 16);
        }
    }
}

static uint64_t session(fz_engine *e) {
    uint64_t s = 0;
    CHECK(fz_session_open(e, &s) == FZ_OK);
    return s;
}

static int32_t submit(fz_engine *e, uint64_t s, const char *prompt, const fz_params *p) {
    int32_t tokens[4096], n = fz_tokenize(e, prompt, (int32_t)strlen(prompt), 0, 0, tokens, 4096);
    char err[200] = "";
    return fz_submit(e, s, tokens, n, p, err, sizeof err);
}

/* What a fresh run of the stub says after `all` tokens; they are extended. */
static void expected(int32_t *all, int32_t n, int32_t count, char *text) {
    for (int32_t i = 0; i < count; i++) {
        all[n + i] = stub_next(all, n + i);
        text[i] = (char)all[n + i];
    }
    text[count] = 0;
}

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

/* --- masks: a grammar of "{" digits… "}" where `{` is forced at the start and "ab" after each digit */

static void *grammar(void *engine) {
    fz_engine *e = engine;
    fz_mask_job job;
    int32_t code, pair = STUB_PAIR;
    while ((code = fz_mask_next(e, 50, &job)) >= 0) {
        if (code == 1) continue;
        bool start = job.token == -1, end = job.token == '}';
        int32_t brace = '{';
        if (end) fz_mask_ff(e, job.session, job.serial, NULL, 0, 1);
        else fz_mask_ff(e, job.session, job.serial, start ? &brace : &pair, 1, 0);
        memset(job.bits, 0, sizeof *job.bits * (size_t)job.n_words);
        for (int c = '0'; c <= '9'; c++) job.bits[c / 32] |= 1u << c % 32;
        job.bits['}' / 32] |= 1u << '}' % 32;
        fz_mask_ready(e, job.session, job.serial, FZ_OK);
    }
    return NULL;
}

static void test_masks(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    pthread_t thread;
    pthread_create(&thread, NULL, grammar, e);
    uint64_t s[6];
    fz_params p = params(41);
    p.temperature = 1.5f;
    for (uint32_t i = 0; i < 6; i++) {
        s[i] = session(e);
        p.constrained = i != 5;
        p.seed = i / 2;
        CHECK(submit(e, s[i], "go", &p) == FZ_OK);
    }
    char first[100] = "";
    for (int i = 0; i < 5; i++) {
        result r = finish(e, s[i]);
        CHECK(r.text[0] == '{' && (r.end.reason == FZ_EOS || r.end.reason == FZ_LENGTH));
        CHECK(r.end.forced_tokens * 2 >= r.end.completion_tokens - 1);
        if (r.end.reason == FZ_EOS) CHECK(r.text[r.len - 1] == '}');
        for (int k = 1; k + 2 < r.len; k += 3)
            CHECK(r.text[k] >= '0' && r.text[k] <= '9' && r.text[k + 1] == 'a' && r.text[k + 2] == 'b');
        if (i % 2) CHECK(strcmp(first, r.text) == 0); /* the same seed */
        snprintf(first, sizeof first, "%.90s", r.text);
    }
    CHECK(finish(e, s[5]).end.completion_tokens == 41);
    p.constrained = 1;
    CHECK(submit(e, s[0], "then", &p) == FZ_OK);
    fz_session_close(e, s[0]); /* perhaps while its mask is under way */
    fz_shutdown(e);
    pthread_join(thread, NULL);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

/* --- ending a decode before the output matrix */

/* What eight generations under the grammar say, one after the other and four at once; and the engine's figures. */
static void sample_texts(const fz_options *o, enum stub_graph graph, char *all, size_t cap, fz_stats *st) {
    stub_reset();
    stub_graph(graph);
    fz_engine *e = opened(o);
    pthread_t thread;
    pthread_create(&thread, NULL, grammar, e);
    uint64_t s[4];
    fz_params p = params(40);
    p.constrained = 1;
    p.temperature = 1.5f;
    all[0] = 0;
    for (int i = 0; i < 4; i++) s[i] = session(e);
    for (int i = 0; i < 8; i++) {
        bool alone = i < 4;
        p.seed = (uint32_t)i;
        CHECK(submit(e, s[i % 4], "go", &p) == FZ_OK);
        for (int k = alone ? i : i == 7 ? 0 : 4; k < (alone ? i + 1 : 4); k++)
            snprintf(all + strlen(all), cap - strlen(all), "%s|", finish(e, s[k]).text);
    }
    fz_stats_get(e, st);
    fz_shutdown(e);
    pthread_join(thread, NULL);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static void test_few_allowed_tokens(void) {
    static char full[8000], few[8000];
    fz_stats st;
    fz_options o = PLAIN;
    for (int capped = 0; capped < 2; capped++) {
        enum stub_graph graph = capped ? STUB_CAPPED : STUB_PLAIN;
        o.full_logits = 1;
        sample_texts(&o, graph, full, sizeof full, &st);
        CHECK(st.rows_limit == 0 && st.short_decodes == 0 && st.rows == 0 && stub_short() == 0);
        CHECK(strcmp(st.rows_why, "it was asked for") == 0);
        o.full_logits = 0;
        sample_texts(&o, graph, few, sizeof few, &st);
        CHECK(strlen(full) > 100 && strcmp(full, few) == 0);
        CHECK(st.rows_limit == STUB_VOCAB / 4 && st.rows_why[0] == 0);
        CHECK(st.short_decodes > 0 && st.short_decodes == stub_short() && st.rows >= 11 * st.short_decodes);
    }
}

/* Who has a mask in time does not wait for another's, however long the output matrix takes. */
static void test_a_late_mask_in_a_decode_that_could_end_early(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    pthread_mutex_lock(&e->lock);
    e->rows.saves_us = 60000000;
    pthread_mutex_unlock(&e->lock);
    uint64_t late = session(e), other = session(e);
    fz_params p = params(8);
    p.constrained = 1;
    CHECK(submit(e, late, "x", &p) == FZ_OK);
    fz_mask_job held, job;
    CHECK(fz_mask_next(e, 5000, &held) == FZ_OK && fz_mask_ff(e, held.session, held.serial, NULL, 0, 0) == FZ_OK);
    p.timeout_ms = 9000; /* less than the time that would be saved, and than a mask is waited for */
    CHECK(submit(e, other, "y", &p) == FZ_OK);
    fz_progress end = {.reason = FZ_RUNNING};
    char text[64];
    while (end.reason == FZ_RUNNING) {
        if (fz_mask_next(e, 5, &job) == FZ_OK) {
            memset(job.bits, 0, sizeof *job.bits * (size_t)job.n_words);
            job.bits['7' / 32] = 1u << '7' % 32;
            CHECK(fz_mask_ready(e, job.session, job.serial, FZ_OK) == FZ_OK);
        }
        CHECK(fz_take(e, other, text, sizeof text, &end) >= 0);
    }
    CHECK(end.reason == FZ_LENGTH && end.completion_tokens == 8);
    memset(held.bits, 0xFF, sizeof *held.bits * (size_t)held.n_words);
    CHECK(fz_mask_ready(e, held.session, held.serial, FZ_OK) == FZ_OK);
    fz_shutdown(e);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static void test_graphs_that_are_computed_whole(void) {
    static char full[8000], text[8000];
    static const struct { enum stub_graph graph; const char *why; } cases[] = {
        {STUB_NAMELESS, "the model's graph does not say where its layers end"},
        {STUB_ELSEWHERE, "the output matrix is repacked for kernels of llama.cpp's own"},
        {STUB_INEXACT, "its logits differ from llama.cpp's in their bits"},
        {STUB_BETWEEN, "the model's graph has something between its last layer and the output matrix"},
        {STUB_AFTER, "the model's graph does something unknown with its logits"},
        {STUB_HIDDEN, "the last layer's output is not where it could be read"},
    };
    fz_stats st;
    fz_options o = PLAIN;
    o.full_logits = 1;
    sample_texts(&o, STUB_PLAIN, full, sizeof full, &st);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sample_texts(&PLAIN, cases[i].graph, text, sizeof text, &st);
        CHECK(strcmp(full, text) == 0 && st.rows_limit == 0 && st.short_decodes == 0);
        CHECK(strcmp(st.rows_why, cases[i].why) == 0);
        if (strcmp(st.rows_why, cases[i].why) != 0) fprintf(stderr, "case %d: %s\n", (int)i, st.rows_why);
    }
}

/* Who has no grammar needs all logits, and so does a mask that allows many tokens. */
static void test_many_allowed_tokens(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t s = session(e), plain = session(e);
    fz_params p = params(4), q = params(200);
    p.constrained = 1;
    CHECK(submit(e, s, "x", &p) == FZ_OK);
    fz_mask_job job;
    int32_t before = stub_short();
    for (int i = 0; i < 4; i++) { /* as many as the limit, and one more, in turn */
        CHECK(fz_mask_next(e, 5000, &job) == FZ_OK);
        memset(job.bits, 0, sizeof *job.bits * (size_t)job.n_words);
        for (int t = 0; t < STUB_VOCAB / 4 + i % 2; t++) job.bits[t / 32] |= 1u << t % 32;
        CHECK(fz_mask_ready(e, job.session, job.serial, FZ_OK) == FZ_OK); /* before it decodes: nothing was forced yet */
    }
    CHECK(finish(e, s).end.completion_tokens == 4 && stub_short() - before <= 2);
    before = stub_short();
    p.max_tokens = 20;
    pthread_t thread;
    pthread_create(&thread, NULL, grammar, e);
    stub_decode_us(200);
    CHECK(submit(e, plain, "free", &q) == FZ_OK && submit(e, s, "y", &p) == FZ_OK);
    CHECK(finish(e, s).end.reason != FZ_FAILED);
    int32_t beside = stub_short() - before; /* those without the stream: it was decoded alone, or not yet */
    CHECK(finish(e, plain).end.completion_tokens == 200 && beside < 20);
    fz_shutdown(e);
    pthread_join(thread, NULL);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static void test_mask_failure(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t s = session(e);
    fz_params p = params(5);
    p.constrained = 1;
    CHECK(submit(e, s, "x", &p) == FZ_OK);
    fz_mask_job job;
    CHECK(fz_mask_next(e, 5000, &job) == FZ_OK && job.token == -1 && job.n_words == 13);
    CHECK(fz_mask_ff(e, job.session, job.serial + 1, NULL, 0, 0) == FZ_E_UNKNOWN);
    CHECK(fz_mask_ready(e, job.session, job.serial, FZ_E_MASK) == FZ_OK);
    result r = finish(e, s);
    CHECK(r.end.reason == FZ_FAILED && r.end.code == FZ_E_MASK);
    CHECK(submit(e, s, "x", &p) == FZ_OK);
    CHECK(fz_mask_next(e, 5000, &job) == FZ_OK);
    CHECK(fz_abort(e, s) == FZ_OK && finish(e, s).end.reason == FZ_ABORTED);
    CHECK(submit(e, s, "y", &p) == FZ_OK); /* waits until the old mask is given back */
    CHECK(fz_mask_next(e, 20, &(fz_mask_job){0}) == 1);
    CHECK(fz_session_close(e, s) == FZ_OK);
    memset(job.bits, 0xFF, sizeof *job.bits * (size_t)job.n_words); /* still ours */
    CHECK(fz_mask_ready(e, job.session, job.serial, FZ_OK) == FZ_OK);
    fz_stats st;
    fz_stats_get(e, &st);
    CHECK(st.sessions == 0);
    fz_close(e);
}

/* --- one client never holds up another ------------------------------------------------------------------ */

static bool runs(fz_engine *e, uint64_t s) {
    char buf[16];
    fz_progress progress;
    return fz_take(e, s, buf, 16, &progress) >= 0 && (progress.reason == FZ_RUNNING || progress.more);
}

/* The only slot is held by one that nobody reads: it is given to others, and then back. */
static void test_unread_text_holds_no_slot(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.out_limit = 64;
    o.n_slots = 1;
    o.n_queue = 0;
    fz_engine *e = opened(&o);
    uint64_t unread = session(e), plain = session(e);
    fz_params p = params(1000);
    int32_t all[4096], n = fz_tokenize(e, "unread", 6, 0, 0, all, 4096);
    char text[1001];
    expected(all, n, 1000, text);
    CHECK(submit(e, unread, "unread", &p) == FZ_OK);
    fz_stats st;
    do look(e, &st);
    while (st.decodes < 64);
    p = params(20);
    p.timeout_ms = 5000;
    for (int i = 0; i < 3; i++) {
        int32_t code; /* it may be read about to be paused */
        do look(e, &st);
        while ((code = submit(e, plain, "plain", &p)) == FZ_E_OVERLOADED);
        CHECK(code == FZ_OK && finish(e, plain).end.reason == FZ_LENGTH);
    }
    result r = finish(e, unread);
    CHECK(r.end.reason == FZ_LENGTH && r.end.prompt_tokens == 6 && r.end.cached_tokens == 0 && strcmp(r.text, text) == 0);
    CHECK(submit(e, unread, "again", &p) == FZ_OK && finish(e, unread).end.reason == FZ_LENGTH);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

/* What a generation asks for keeps nobody waiting; it counts what it holds. */
static void test_a_need_is_what_is_held(void) {
    stub_reset();
    stub_decode_us(1000);
    fz_options o = PLAIN;
    o.n_ctx = 1024;
    fz_engine *e = opened(&o);
    uint64_t all = session(e), plain = session(e);
    fz_params p = params(1000000), few = params(5);
    CHECK(submit(e, all, "everything", &p) == FZ_OK && submit(e, plain, "plain", &few) == FZ_OK);
    CHECK(finish(e, plain).end.reason == FZ_LENGTH);
    CHECK(runs(e, all));
    CHECK(fz_abort(e, all) == FZ_OK);
    fz_close(e);
}

/* More than the cache holds: one gives way and is computed again, and nobody's text differs. */
static void test_giving_way(void) {
    for (int turn = 0; turn < 2; turn++) {
        stub_reset();
        stub_decode_us(100);
        fz_options o = PLAIN;
        o.n_ctx = 512;
        fz_engine *e = opened(&o);
        uint64_t s[3];
        char text[3][401], prompt[3][32];
        int32_t all[4096], n_tokens = turn ? 400 : 200;
        fz_params p = params(n_tokens);
        for (int i = 0; i < 3; i++) {
            snprintf(prompt[i], sizeof prompt[i], "%c prompt of its own", 'A' + i);
            int32_t n = fz_tokenize(e, prompt[i], (int32_t)strlen(prompt[i]), 0, 0, all, 4096);
            expected(all, n, n_tokens, text[i]);
            s[i] = session(e);
            CHECK(submit(e, s[i], prompt[i], &p) == FZ_OK);
        }
        for (int i = 0; i < 3; i++) {
            result r = finish(e, s[i]);
            CHECK(r.end.reason == FZ_LENGTH && strcmp(r.text, text[i]) == 0 && r.end.cached_tokens == 0);
        }
        fz_stats st;
        fz_stats_get(e, &st);
        CHECK(st.evictions > 0 && stub_misuse() == 0);
        fz_close(e);
    }
}

/* A short prompt does not wait behind a long one that came before. */
static void test_short_prompts_pass_long_ones(void) {
    stub_reset();
    stub_decode_us(5000);
    fz_options o = PLAIN;
    o.n_ctx = 8192;
    fz_engine *e = opened(&o);
    uint64_t slow = session(e), quick = session(e);
    static char prompt[4001];
    memset(prompt, 'l', 4000);
    fz_params p = params(5);
    CHECK(submit(e, slow, prompt, &p) == FZ_OK);
    fz_stats st;
    do look(e, &st);
    while (st.decodes == 0);
    fz_params one = params(1);
    CHECK(submit(e, quick, "short", &one) == FZ_OK && finish(e, quick).end.reason == FZ_LENGTH);
    fz_progress progress;
    char buf[16];
    CHECK(fz_take(e, slow, buf, 16, &progress) == 0 && progress.completion_tokens == 0);
    CHECK(finish(e, slow).end.reason == FZ_LENGTH && stub_misuse() == 0);
    fz_close(e);
}

/* Forces a thousand tokens at once, then lets everything. */
static void *forcing(void *engine) {
    fz_engine *e = engine;
    fz_mask_job job;
    int32_t code, many[1000];
    for (int i = 0; i < 1000; i++) many[i] = 'f';
    while ((code = fz_mask_next(e, 50, &job)) >= 0) {
        if (code == 1) continue;
        fz_mask_ff(e, job.session, job.serial, many, job.token == -1 ? 1000 : 0, 0);
        memset(job.bits, 0xFF, sizeof *job.bits * (size_t)job.n_words);
        fz_mask_ready(e, job.session, job.serial, FZ_OK);
    }
    return NULL;
}

/* What a grammar forces goes beside running streams in chunks, as prompts do. */
static void test_forced_tokens_beside_a_stream(void) {
    stub_reset();
    stub_decode_us(1000);
    fz_engine *e = opened(&PLAIN);
    pthread_t thread;
    pthread_create(&thread, NULL, forcing, e);
    uint64_t stream = session(e), forced = session(e);
    fz_params p = params(200), c = params(1010);
    c.constrained = 1;
    CHECK(submit(e, stream, "a stream", &p) == FZ_OK);
    fz_stats st;
    do look(e, &st);
    while (st.decodes < 2);
    CHECK(submit(e, forced, "x", &c) == FZ_OK);
    CHECK(finish(e, stream).end.reason == FZ_LENGTH);
    CHECK(stub_longest() <= 64 + 1); /* without calibration a chunk is of 64 tokens */
    CHECK(finish(e, forced).end.forced_tokens == 1000);
    fz_shutdown(e);
    pthread_join(thread, NULL);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

/* A mask that is late holds up its own generation only, which then goes on as if nothing had been. */
static void test_a_late_mask(void) {
    for (int gone = 0; gone < 2; gone++) {
        stub_reset();
        fz_engine *e = opened(&PLAIN);
        uint64_t late = session(e), plain = session(e);
        fz_params c = params(3), p = params(400);
        c.constrained = 1;
        CHECK(submit(e, late, "late", &c) == FZ_OK);
        fz_mask_job job;
        CHECK(fz_mask_next(e, 5000, &job) == FZ_OK && fz_mask_ff(e, job.session, job.serial, NULL, 0, 0) == FZ_OK);
        p.timeout_ms = 9000; /* less than a mask is waited for */
        CHECK(submit(e, plain, "plain", &p) == FZ_OK && finish(e, plain).end.reason == FZ_LENGTH);
        if (gone) {
            CHECK(fz_abort(e, late) == FZ_OK && finish(e, late).end.reason == FZ_ABORTED);
            CHECK(fz_mask_ready(e, job.session, job.serial, FZ_OK) == FZ_OK);
        }
        for (int i = 0; i < 3 && !gone; i++) {
            memset(job.bits, 0, sizeof *job.bits * (size_t)job.n_words);
            job.bits['z' / 32] |= 1u << 'z' % 32;
            CHECK(fz_mask_ready(e, job.session, job.serial, FZ_OK) == FZ_OK);
            if (i == 2) break;
            CHECK(fz_mask_next(e, 5000, &job) == FZ_OK && job.token == 'z');
            CHECK(fz_mask_ff(e, job.session, job.serial, NULL, 0, 0) == FZ_OK);
        }
        result r = gone ? (result){.len = 0} : finish(e, late);
        CHECK(gone || (r.end.reason == FZ_LENGTH && strcmp(r.text, "zzz") == 0));
        CHECK(stub_misuse() == 0);
        fz_close(e);
    }
}

/* --- drafts: what a conversation said before, tried in the same decode */

static void test_what_a_draft_is(void) {
    int32_t draft[4], match;
    const int32_t text[] = {1, 2, 3, 4, 5, 9, 2, 3, 7, 8, 1, 2, 3};
    CHECK(fz_draft_find(text, 13, 4, draft, &match) == 4 && match == 3); /* 1 2 3 is longer than the later 2 3 */
    CHECK(draft[0] == 4 && draft[1] == 5 && draft[2] == 9 && draft[3] == 2);
    CHECK(fz_draft_find(text + 1, 12, 2, draft, &match) == 2 && match == 2 && draft[0] == 7 && draft[1] == 8); /* the latest */
    CHECK(fz_draft_find(text, 12, 4, draft, &match) == 4 && match == 2 && draft[0] == 3);
    CHECK(fz_draft_find(text, 11, 4, draft, &match) == 0);
    const int32_t same[] = {6, 6, 6, 6};
    CHECK(fz_draft_find(same, 4, 4, draft, &match) == 1 && match == 3 && draft[0] == 6);
    for (int32_t n = 0; n < 3; n++) CHECK(fz_draft_find(same, n, 4, draft, &match) == 0);
    CHECK(fz_draft_find(same, 3, 4, draft, &match) == 1 && match == 2);
}

static void test_drafts_that_pay(void) {
    const int64_t dear[] = {100, 190, 280}, cheap[] = {100, 110, 180}, unknown[] = {0, 0, 0};
    CHECK(fz_draft_length(0.99f, dear, 2) == 1 || fz_draft_length(0.99f, dear, 2) == 2);
    CHECK(fz_draft_length(0.5f, dear, 2) == 0 && fz_draft_length(0.1f, cheap, 2) == 0);
    CHECK(fz_draft_length(0.5f, cheap, 2) == 1 && fz_draft_length(0.5f, cheap, 1) == 1);
    CHECK(fz_draft_length(0.01f, unknown, 2) == 2);
    fz_session s = {.n_tok = 0};
    fz_draft_forget(&s);
    float first = s.hits[1];
    for (int i = 0; i < 20; i++) {
        s.guess = 5;
        s.guess_long = true;
        fz_draft_seen(&s, 6);
        CHECK(s.guess == -1 && s.hits[1] < first && s.hits[0] > 0.2f);
        fz_draft_seen(&s, 5); /* there was no guess */
    }
    CHECK(s.hits[1] < 0.1f);
}

/* The masks of a grammar that lets every byte, and forces a second 'x' after each. */
static void *lets_all(void *engine) {
    fz_engine *e = engine;
    fz_mask_job job;
    int32_t code, x = 'x';
    while ((code = fz_mask_next(e, 50, &job)) >= 0) {
        if (code == 1) continue;
        fz_mask_ff(e, job.session, job.serial, &x, job.token == 'x', 0);
        memset(job.bits, 0, sizeof *job.bits * (size_t)job.n_words);
        for (int c = 32; c <= (job.token == 'y' ? 255 : 127); c++) job.bits[c / 32] |= 1u << c % 32; /* few, or many */
        fz_mask_ready(e, job.session, job.serial, FZ_OK);
    }
    return NULL;
}

/* All that generations of each kind say, of a text that repeats itself, with why they end; and the engine's figures. */
static void texts_that_repeat(const fz_options *o, bool constrained, char *all, size_t cap, fz_stats *st) {
    stub_reset();
    stub_script(1, "name-one name-two name-one name-two xay name-one xbybyby name-one name-two, name-one name-two. ");
    fz_engine *e = opened(o);
    pthread_t thread;
    if (constrained) pthread_create(&thread, NULL, lets_all, e);
    all[0] = 0;
    static const struct { int32_t most; float temperature, penalty; const char *stop; } kinds[] = {
        {200, 0, 1, NULL}, {41, 0, 1, NULL}, {42, 0, 1, NULL}, {43, 0, 1, NULL}, {200, 0, 1, "e-two, n"}, {200, 0, 1, "two."},
        {60, 0.6f, 1, NULL}, {60, 0.6f, 1.02f, NULL}, {60, 1, 1, "zz"},
    };
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
        for (uint32_t seed = 0; seed < 4; seed++) {
            fz_params p = params(kinds[kind].most);
            p.temperature = kinds[kind].temperature;
            p.repeat_penalty = kinds[kind].penalty;
            p.constrained = constrained;
            p.seed = seed;
            if (kinds[kind].stop) p.n_stop = 1, p.stop[0] = kinds[kind].stop, p.stop_len[0] = (int32_t)strlen(kinds[kind].stop);
            uint64_t s = session(e);
            int32_t prompt[] = {'n', 'a', 'm', 'e', '-', 't', 'w', 'o', STUB_SCRIPT + 1};
            char err[100];
            for (int turn = 0; turn < 2; turn++) { /* the second one follows what the first one left */
                CHECK(fz_submit(e, s, prompt, 9, &p, err, sizeof err) == FZ_OK);
                result r = finish(e, s);
                snprintf(all + strlen(all), cap - strlen(all), "%s|%d %d %d %d|", r.text, r.end.reason, r.end.completion_tokens,
                         r.end.forced_tokens, fz_session_tokens(e, s));
            }
            fz_session_close(e, s);
        }
    fz_stats_get(e, st);
    fz_shutdown(e);
    if (constrained) pthread_join(thread, NULL);
    CHECK(stub_misuse() == 0);
    fz_close(e);
}

static void test_drafts_change_no_text(void) {
    static char without[60000], with[60000];
    fz_stats off, on;
    fz_options o = PLAIN;
    for (int constrained = 0; constrained < 2; constrained++)
        for (int full = 0; full <= constrained; full++) {
            o.full_logits = full;
            o.drafts = FZ_DRAFTS_OFF;
            texts_that_repeat(&o, constrained, without, sizeof without, &off);
            o.drafts = FZ_DRAFTS_EXACT;
            texts_that_repeat(&o, constrained, with, sizeof with, &on);
            CHECK(strlen(without) > 4000 && strcmp(without, with) == 0);
            CHECK(off.drafted == 0 && off.drafts_limit == 0 && strcmp(off.drafts_why, "it was asked for") == 0);
            CHECK(on.drafts_limit == FZ_DRAFTS && on.drafts_why[0] == 0);
            CHECK(on.draft_accepted > 500 && on.draft_accepted < on.drafted);
            CHECK(constrained ? on.decodes < off.decodes : on.decodes == off.decodes - on.draft_accepted);
            CHECK(constrained == (on.short_decodes > 0 || full));
        }
}

static void test_drafts_that_are_refused(void) {
    static char text[60000];
    fz_stats st;
    stub_reset();
    stub_graph(STUB_WIDE);
    fz_engine *e = opened(&PLAIN);
    fz_stats_get(e, &st);
    CHECK(st.drafts_limit == 0 && strcmp(st.drafts_why, "tokens that are decoded at once get other logits than one by one") == 0);
    fz_close(e);
    fz_options o = PLAIN;
    char err[100];
    for (int32_t mode = -1; mode <= 3; mode += 4) {
        o.drafts = mode;
        CHECK(fz_open("stub", &o, &e, err, sizeof err) == FZ_E_INVALID && strstr(err, "drafts is"));
    }
    texts_that_repeat(&PLAIN, false, text, sizeof text, &st);
    CHECK(st.drafted > 0);
}

/* Where llama.cpp divides the attention of one token among threads, none are tried unless they are asked for. */
static void test_drafts_in_a_long_conversation(void) {
    char prompt[300];
    for (int i = 0; i < 299; i++) prompt[i] = "abcdefgh"[i % 8];
    prompt[299] = 0;
    for (int how = 0; how < 3; how++) {
        stub_reset();
        fz_options o = PLAIN;
        o.n_threads = how == 0 ? 1 : 2;
        o.drafts = how == 2 ? FZ_DRAFTS_ALWAYS : FZ_DRAFTS_EXACT;
        fz_engine *e = opened(&o);
        fz_stats st;
        fz_params p = params(400);
        CHECK(submit(e, session(e), prompt, &p) == FZ_OK && finish(e, 1).end.reason == FZ_LENGTH);
        fz_stats_get(e, &st);
        CHECK((st.drafted > 0) == (how != 1));
        fz_close(e);
    }
}

/* A draft never makes anybody lose his place: without room it is left out. */
static void test_a_draft_without_room(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    fz_params p = params(80);
    stub_script(2, "again and again and again and again and again and again and again and again and again");
    int32_t prompt[] = {'g', 'o', STUB_SCRIPT + 2};
    uint64_t idle = session(e), s = session(e);
    CHECK(submit(e, idle, "it does nothing", &p) == FZ_OK);
    finish(e, idle);
    fz_stats before, st;
    fz_stats_get(e, &before);
    stub_decode_us(500);
    char err[100];
    CHECK(fz_submit(e, s, prompt, 3, &p, err, sizeof err) == FZ_OK);
    do look(e, &st);
    while (st.decodes == before.decodes); /* the prompt is behind it */
    stub_room(1);
    result r = finish(e, s);
    CHECK(r.end.reason == FZ_LENGTH && strncmp(r.text, "again and again and again and again and again", 45) == 0);
    fz_stats_get(e, &st);
    CHECK(st.drafted > before.drafted && st.evictions == 0 && stub_misuse() == 0);
    fz_close(e);
}

/* Ended in the middle of a decode with a draft: nothing of it stays, and the next turn is what it would have been. */
static void test_abort_within_a_draft(void) {
    for (int how = 0; how < 3; how++) {
        stub_reset();
        stub_script(3, "on and on and on and on and on and on and on and on and on and on and on and on and on and on and on");
        fz_engine *e = opened(&PLAIN);
        uint64_t s = session(e);
        fz_params p = params(300), q = params(6);
        fz_stats st;
        char err[100], text[64];
        int32_t prompt[] = {'g', 'o', STUB_SCRIPT + 3}, all[1000];
        stub_decode_us(3000);
        if (how == 2) p.timeout_ms = 150;
        CHECK(fz_submit(e, s, prompt, 3, &p, err, sizeof err) == FZ_OK);
        do look(e, &st);
        while (st.drafted < 10 && st.running);
        if (how == 0) CHECK(fz_abort(e, s) == FZ_OK);
        if (how == 1) CHECK(fz_session_close(e, s) == FZ_OK);
        if (how == 1) s = session(e);
        else CHECK(finish(e, s).end.reason == (how == 0 ? FZ_ABORTED : FZ_TIMEOUT));
        stub_decode_us(0);
        int32_t n = how == 1 ? 0 : fz_session_tokens(e, s), said = n - 3;
        const char *script = "on and on and on and on and on and on and on and on and on and on and on and on and on and on and on";
        memcpy(all, prompt, sizeof prompt);
        for (int32_t i = 0; i < said; i++) all[3 + i] = script[i];
        all[n] = 'z';
        expected(all, n + 1, 6, text);
        CHECK(submit(e, s, "z", &q) == FZ_OK && strcmp(finish(e, s).text, text) == 0);
        CHECK(stub_misuse() == 0);
        fz_close(e);
    }
}

/* --- threads -------------------------------------------------------------------------------------------- */

/* Decodes of a machine on which each number of threads takes so long; the threads after them. */
static int32_t decodes(fz_threads *t, int32_t n, int64_t most_us, int64_t half_us, int64_t one_us) {
    int32_t threads = t->choice[t->at];
    for (int32_t i = 0; i < n; i++)
        threads = fz_threads_next(t, threads == t->choice[0] ? most_us : threads == 1 ? one_us : half_us, 10000);
    return threads;
}

static void test_numbers_of_threads(void) {
    fz_threads t;
    fz_threads_init(&t, 4, true);
    CHECK(t.n == 3 && t.choice[0] == 4 && t.choice[1] == 2 && t.choice[2] == 1);
    CHECK(decodes(&t, 1000, 10000, 15000, 25000) == 4);        /* quiet: nothing is tried */
    CHECK(decodes(&t, 100, 1000000, 300000, 30000) == 1);      /* busy: one thread is the quickest */
    CHECK(decodes(&t, 1000, 1000000, 300000, 30000) == 1);     /* and stays so */
    CHECK(decodes(&t, 5000, 10000, 15000, 25000) == 4);        /* quiet again */
    CHECK(decodes(&t, 100, 40000, 39000, 39500) == 4);         /* slow in any case: all of them */
    fz_threads_init(&t, 4, false);                             /* asked for */
    CHECK(decodes(&t, 1000, 1000000, 1, 1) == 4 && t.n == 1);
    fz_threads_init(&t, 1, true);
    CHECK(decodes(&t, 100, 1000000, 1, 1) == 1 && t.n == 1);
}

/* At the start, and on the way. */
static void test_threads_of_a_busy_machine(void) {
    stub_reset();
    stub_decode_us(300);
    stub_busy_us(6000);
    fz_options o = PLAIN;
    o.calibrate = 1;
    o.n_threads = 0;
    fz_engine *e = opened(&o);
    fz_stats st;
    fz_stats_get(e, &st);
    CHECK(st.n_threads == 1);
    fz_close(e);
    stub_busy_us(0);
    e = opened(&o);
    fz_stats_get(e, &st);
    int32_t cores = st.n_threads;
    stub_busy_us(6000);
    uint64_t s = session(e);
    fz_params p = params(200);
    CHECK(submit(e, s, "x", &p) == FZ_OK && finish(e, s).end.reason == FZ_LENGTH);
    fz_stats_get(e, &st);
    CHECK(cores >= 1 && st.n_threads == 1 && stub_misuse() == 0);
    fz_close(e);
}

/* --- sampling --------------------------------------------------------------------------------------------- */

static void test_sampling(void) {
    enum { N = 5000 };
    const int draws = getenv("QUICK") ? 3000 : 20000; /* valgrind is slow */
    const double near = getenv("QUICK") ? 0.03 : 0.015;
    static float base[N], logits[N];
    static int count[N];
    fz_sampler s;
    CHECK(fz_sampler_init(&s, N));
    for (int i = 0; i < N; i++) base[i] = -8;
    base[10] = 2, base[4999] = 1, base[2000] = 0;
    struct { fz_params p; double share[3]; bool others; } cases[] = {
        {{.temperature = 1, .top_p = 1, .repeat_penalty = 1, .top_k = 3}, {0.665, 0.245, 0.090}, false},
        {{.temperature = 1, .top_p = 1, .repeat_penalty = 1, .top_k = 2}, {0.731, 0.269, 0}, false},
        {{.temperature = 1, .top_p = 0.7f, .repeat_penalty = 1}, {0.731, 0.269, 0}, false},
        {{.temperature = 1, .top_p = 0.7f, .repeat_penalty = 1, .top_k = 50}, {0.731, 0.269, 0}, false},
        {{.temperature = 1, .top_p = 1, .repeat_penalty = 1, .min_p = 0.3f}, {0.731, 0.269, 0}, false},
        {{.temperature = 0.5f, .top_p = 1, .repeat_penalty = 1, .top_k = 3}, {0.867, 0.117, 0.016}, false},
        {{.temperature = 1, .top_p = 1, .repeat_penalty = 1}, {0.577, 0.212, 0.078}, true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        fz_rng rng;
        fz_rng_seed(&rng, 42);
        memset(count, 0, sizeof count);
        for (int i = 0; i < draws; i++) {
            memcpy(logits, base, sizeof base);
            count[fz_sample(&s, logits, NULL, &cases[c].p, &rng, NULL, 0)]++;
        }
        int three[3] = {count[10], count[4999], count[2000]};
        for (int k = 0; k < 3; k++) {
            double share = (double)three[k] / draws;
            CHECK(share > cases[c].share[k] - near && share < cases[c].share[k] + near);
        }
        CHECK((three[0] + three[1] + three[2] < draws) == cases[c].others);
    }
    fz_rng rng;
    fz_rng_seed(&rng, 1);
    fz_params greedy = {.top_p = 1, .repeat_penalty = 1}, penal = {.top_p = 1, .repeat_penalty = 4};
    uint32_t mask[(N + 31) / 32] = {0};
    int32_t recent[] = {10, 10, 3};
    memcpy(logits, base, sizeof base);
    CHECK(fz_sample(&s, logits, NULL, &greedy, &rng, NULL, 0) == 10);
    CHECK(fz_sample(&s, logits, mask, &greedy, &rng, NULL, 0) == -1);
    CHECK(fz_sample(&s, logits, NULL, &penal, &rng, recent, 3) == 4999 && logits[10] == 0.5f && logits[3] == -32);
    mask[2000 / 32] |= 1u << 2000 % 32;
    mask[7 / 32] |= 1u << 7;
    CHECK(fz_sample(&s, logits, mask, &greedy, &rng, NULL, 0) == 2000);
    fz_params warm = {.temperature = 2, .top_p = 1, .repeat_penalty = 1};
    for (int i = 0; i < 200; i++) {
        memcpy(logits, base, sizeof base);
        int32_t token = fz_sample(&s, logits, mask, &warm, &rng, NULL, 0);
        CHECK(token == 2000 || token == 7);
    }
    memset(mask, 0, sizeof mask);
    CHECK(fz_sample(&s, logits, mask, &warm, &rng, NULL, 0) == -1);
    fz_sampler_free(&s);
}

/* A large vocabulary, flat: as many tokens as hold 95 %, and those alone. */
static void test_a_flat_nucleus(void) {
    enum { N = 40000 };
    const int draws = getenv("QUICK") ? 20 : 300;
    float *base = malloc(sizeof *base * N), *logits = malloc(sizeof *logits * N);
    fz_sampler s;
    CHECK(base && logits && fz_sampler_init(&s, N));
    double whole = 0, sum = 0;
    for (int i = 0; i < N; i++) base[i] = (float)((uint32_t)i * 2654435761u >> 8) / 16777216.0f; /* each in 0 to 1 */
    for (int i = 0; i < N; i++) whole += exp((double)base[i]);
    float least = (float)log(1 + 0.05 * (exp(1) - 1)); /* of the flat density e^x from 0 to 1, 95 % are above it */
    for (int i = 0; i < N; i++) sum += base[i] >= least ? exp((double)base[i]) : 0;
    CHECK(sum / whole > 0.949 && sum / whole < 0.951);
    fz_rng rng;
    fz_rng_seed(&rng, 3);
    fz_params p = {.temperature = 1, .top_p = 0.95f, .repeat_penalty = 1}, sharp = p, floor = p;
    sharp.temperature = 0.05f;
    floor.min_p = 0.9f;
    int near = 0, low = 0;
    for (int i = 0; i < draws; i++) {
        memcpy(logits, base, sizeof *base * N);
        float x = base[fz_sample(&s, logits, NULL, &p, &rng, NULL, 0)];
        CHECK(x > least - 0.001f);
        low += x < 0.5f;
        memcpy(logits, base, sizeof *base * N);
        near += base[fz_sample(&s, logits, NULL, &sharp, &rng, NULL, 0)] > 0.9f;
        memcpy(logits, base, sizeof *base * N);
        CHECK(base[fz_sample(&s, logits, NULL, &floor, &rng, NULL, 0)] >= 1 + logf(0.9f) - 1e-5f);
    }
    CHECK(draws < 300 || (low > 70 && low < 140)); /* 34 % */
    CHECK(draws < 300 || near > 230);              /* 86 % */
    for (int i = 0; i < N; i++) base[i] = 0;
    for (int i = 0; i < 20; i++) {
        memcpy(logits, base, sizeof *base * N);
        CHECK(fz_sample(&s, logits, NULL, &p, &rng, NULL, 0) >= 0); /* all alike */
    }
    fz_sampler_free(&s);
    free(base);
    free(logits);
}

/* What a narrow mask allows is sampled as the whole would be; a temperature near zero takes the likeliest. */
static void test_narrow_masks_and_low_temperatures(void) {
    enum { N = 5000 };
    static float base[N], logits[N];
    static uint32_t mask[(N + 31) / 32];
    fz_sampler s;
    CHECK(fz_sampler_init(&s, N));
    for (int i = 0; i < N; i++) base[i] = (float)(i % 7);
    base[40] = 9, base[41] = 8, base[42] = 3, base[43] = 20;
    mask[40 / 32] |= 1u << 40 % 32 | 1u << 41 % 32 | 1u << 42 % 32;
    fz_rng rng;
    fz_rng_seed(&rng, 5);
    fz_params p = {.temperature = 1, .top_p = 1, .repeat_penalty = 1}, two = p, cold = p;
    two.top_p = 0.9f; /* 0.73 and 0.27 */
    cold.temperature = 1e-40f;
    int count[3] = {0}, of_two[3] = {0};
    for (int i = 0; i < 4000; i++) {
        memcpy(logits, base, sizeof base);
        int32_t token = fz_sample(&s, logits, mask, &p, &rng, NULL, 0);
        CHECK(token >= 40 && token <= 42);
        count[token - 40]++;
        of_two[fz_sample(&s, logits, mask, &two, &rng, NULL, 0) - 40]++;
    }
    CHECK(count[0] > 2750 && count[0] < 3080 && count[2] < 30);
    CHECK(of_two[0] > 2770 && of_two[0] < 3080 && of_two[2] == 0);
    for (int i = 0; i < 100; i++) {
        memcpy(logits, base, sizeof base);
        CHECK(fz_sample(&s, logits, NULL, &cold, &rng, NULL, 0) == 43);
        CHECK(fz_sample(&s, logits, mask, &cold, &rng, NULL, 0) == 40);
    }
    fz_sampler_free(&s);
}

static void test_plan(void) {
    fz_costs st = {0};
    int64_t cost[8] = {109, 247, 330, 350, 440, 500, 510, 428};
    memcpy(st.us, cost, sizeof cost);
    fz_plan_from(&st, 8);
    for (int n = 1; n <= 8; n++) { /* never below one after the other, and the best of all partitions */
        int64_t all = 0;
        for (int left = n; left > 0; left -= st.plan[left - 1]) all += cost[st.plan[left - 1] - 1];
        CHECK(all <= n * cost[0]);
    }
    CHECK(st.plan[1] == 1 && st.plan[2] == 1 && st.plan[3] == 4 && st.plan[7] == 8);
    st.n = 8;
    fz_plan_learn(&st, 2, 120); /* the start was disturbed: two at once are cheap */
    CHECK(st.us[1] == 120 && st.plan[1] == 2);
    for (int i = 0; i < 200; i++) fz_plan_learn(&st, 2, 300); /* and then they are not */
    CHECK(st.us[1] > 218 && st.plan[1] == 1);
    fz_plan_learn(&st, 9, 1);
    fz_plan_learn(&st, 0, 1);
    CHECK(st.us[0] == 109 && st.us[7] == 428);
    fz_costs none = {.n = 4, .plan = {1, 2, 3, 4}};
    fz_plan_learn(&none, 4, 10); /* without calibration */
    CHECK(none.us[3] == 0 && none.plan[3] == 4);
}

/* A start on a busy machine says one after the other; decodes say otherwise. */
static void test_plan_is_mended(void) {
    stub_reset();
    stub_decode_us(300); /* whatever the batch */
    fz_options o = PLAIN;
    o.calibrate = 1;
    fz_engine *e = opened(&o);
    pthread_mutex_lock(&e->lock);
    for (int k = 1; k < 4; k++) e->stats.costs.us[k] = 1000000;
    fz_plan_from(&e->stats.costs, 4);
    CHECK(e->stats.costs.plan[3] == 1);
    pthread_mutex_unlock(&e->lock);
    fz_params p = params(60);
    uint64_t s[4];
    char prompt[2] = "a";
    for (int i = 0; i < 4; i++) {
        s[i] = session(e);
        prompt[0] = (char)('a' + i);
        CHECK(submit(e, s[i], prompt, &p) == FZ_OK);
    }
    for (int i = 0; i < 4; i++) finish(e, s[i]);
    fz_stats st;
    fz_stats_get(e, &st);
    CHECK(st.costs.plan[3] == 4 && st.costs.us[3] < 1000000 && stub_misuse() == 0);
    fz_close(e);
}

/* --- everybody at once ------------------------------------------------------------------------------------ */

typedef struct worker { fz_engine *e; unsigned seed; } worker;

static void *client(void *arg) {
    worker *w = arg;
    for (int i = 0; i < 40; i++) {
        uint64_t s;
        if (fz_session_open(w->e, &s) != FZ_OK) continue;
        for (int turn = 0; turn < 2; turn++) {
            fz_params p = params(1 + rand_r(&w->seed) % 30);
            p.constrained = rand_r(&w->seed) % 3 == 0;
            if (rand_r(&w->seed) % 8 == 0) p.timeout_ms = 1;
            if (submit(w->e, s, "a prompt that all share, then more", &p) != FZ_OK) break;
            if (rand_r(&w->seed) % 4 == 0) fz_abort(w->e, s);
            if (rand_r(&w->seed) % 6 == 0) break; /* closed while it runs */
            fz_progress progress = {0};
            char buf[64];
            while (fz_take(w->e, s, buf, sizeof buf, &progress) >= 0 && (progress.reason == FZ_RUNNING || progress.more)) {
                struct timespec t = {.tv_nsec = 50000};
                nanosleep(&t, NULL);
            }
        }
        fz_session_close(w->e, s);
    }
    return NULL;
}

static void test_threads(void) {
    stub_reset();
    stub_decode_us(100);
    fz_options o = PLAIN;
    o.n_ctx = 512;
    fz_engine *e = opened(&o);
    pthread_t threads[9];
    worker w[8];
    pthread_create(&threads[8], NULL, grammar, e);
    for (unsigned i = 0; i < 8; i++) {
        w[i] = (worker){e, i + 1};
        pthread_create(&threads[i], NULL, client, &w[i]);
    }
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    fz_stats st;
    do look(e, &st);
    while (st.sessions || st.running || st.queued);
    CHECK(stub_misuse() == 0 && st.decodes > 100);
    fz_shutdown(e);
    pthread_join(threads[8], NULL);
    fz_close(e);
}

static void test_calibration(void) {
    stub_reset();
    stub_decode_us(200);
    fz_options o = PLAIN;
    o.calibrate = 1;
    fz_engine *e = opened(&o);
    fz_stats st;
    fz_stats_get(e, &st);
    CHECK(st.costs.n == 4 && st.costs.us[0] >= 200 && st.costs.plan[0] == 1 && st.costs.plan[3] >= 1 && st.chunk >= 16);
    uint64_t s = session(e);
    fz_params p = params(3);
    int32_t all[100], n = fz_tokenize(e, "x", 1, 0, 0, all, 100);
    char text[10];
    expected(all, n, 3, text);
    CHECK(submit(e, s, "x", &p) == FZ_OK && strcmp(finish(e, s).text, text) == 0); /* nothing is left in the cache */
    fz_close(e);
}

int main(void) {
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
    RUN(test_masks);
    RUN(test_few_allowed_tokens);
    RUN(test_a_late_mask_in_a_decode_that_could_end_early);
    RUN(test_graphs_that_are_computed_whole);
    RUN(test_many_allowed_tokens);
    RUN(test_mask_failure);
    RUN(test_unread_text_holds_no_slot);
    RUN(test_a_need_is_what_is_held);
    RUN(test_giving_way);
    RUN(test_short_prompts_pass_long_ones);
    RUN(test_forced_tokens_beside_a_stream);
    RUN(test_a_late_mask);
    RUN(test_what_a_draft_is);
    RUN(test_drafts_that_pay);
    RUN(test_drafts_change_no_text);
    RUN(test_drafts_that_are_refused);
    RUN(test_drafts_in_a_long_conversation);
    RUN(test_a_draft_without_room);
    RUN(test_abort_within_a_draft);
    RUN(test_numbers_of_threads);
    RUN(test_threads_of_a_busy_machine);
    RUN(test_sampling);
    RUN(test_a_flat_nucleus);
    RUN(test_narrow_masks_and_low_temperatures);
    RUN(test_plan);
    RUN(test_plan_is_mended);
    RUN(test_calibration);
    RUN(test_threads);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
