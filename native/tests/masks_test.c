/* Grammars, decodes that end early, and that one client never holds up another. */
#include <pthread.h>

#include "bridge_test.h"

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

/* Who has a mask in time does not wait for another's, however long the output matrix takes, also where he comes while that
 * one is waited for. */
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
    int32_t before = stub_begun();
    CHECK(fz_mask_next(e, 5000, &held) == FZ_OK && fz_mask_ff(e, held.session, held.serial, NULL, 0, 0) == FZ_OK);
    fz_stats st;
    do look(e, &st);
    while (stub_begun() == before);
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

void run_masks_tests(void) {
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
}
