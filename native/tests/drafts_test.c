/* Drafts: what a conversation said before, tried in the same decode. */
#include <pthread.h>

#include "bridge_test.h"

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

/* Ended in the middle of a decode with a draft, which the stub holds until then: nothing of it stays, and the next turn is
 * what it would have been. */
static void test_abort_within_a_draft(void) {
    static const char script[] = "on and on and on and on and on and on and on and on and on and on and on and on and on and on and on";
    for (int how = 0; how < 3; how++) {
        stub_reset();
        stub_script(3, script);
        fz_engine *e = opened(&PLAIN);
        uint64_t s = session(e);
        fz_params p = params(300), q = params(6);
        fz_stats before, st;
        char err[100], text[64];
        int32_t prompt[] = {'g', 'o', STUB_SCRIPT + 3}, all[1000];
        fz_stats_get(e, &before);
        stub_decode_us(3000);
        if (how == 2) p.timeout_ms = 500;
        CHECK(fz_submit(e, s, prompt, 3, &p, err, sizeof err) == FZ_OK);
        do look(e, &st);
        while (st.decodes == before.decodes); /* the prompt, of as many tokens as a draft's decode has, is behind it */
        stub_hold(2);
        do look(e, &st);
        while (!stub_held() && st.running);
        CHECK(stub_held() == 1 && st.drafted > before.drafted);
        if (how == 0) CHECK(fz_abort(e, s) == FZ_OK);
        if (how == 1) CHECK(fz_session_close(e, s) == FZ_OK);
        if (how == 1) {
            do look(e, &st);
            while (st.running);
            s = session(e);
        } else CHECK(finish(e, s).end.reason == (how == 0 ? FZ_ABORTED : FZ_TIMEOUT));
        stub_hold(0);
        stub_decode_us(0);
        int32_t n = how == 1 ? 0 : fz_session_tokens(e, s), said = n - 3;
        memcpy(all, prompt, sizeof prompt);
        for (int32_t i = 0; i < said; i++) all[3 + i] = script[i];
        all[n] = 'z';
        expected(all, n + 1, 6, text);
        CHECK(submit(e, s, "z", &q) == FZ_OK && strcmp(finish(e, s).text, text) == 0);
        fz_stats_get(e, &st);
        CHECK(stub_held() == 1 && st.drafted > st.draft_accepted); /* it was ended from outside, and what it tried was not said */
        CHECK(stub_misuse() == 0);
        fz_close(e);
    }
}

void run_drafts_tests(void) {
    RUN(test_what_a_draft_is);
    RUN(test_drafts_that_pay);
    RUN(test_drafts_change_no_text);
    RUN(test_drafts_that_are_refused);
    RUN(test_drafts_in_a_long_conversation);
    RUN(test_a_draft_without_room);
    RUN(test_abort_within_a_draft);
}
