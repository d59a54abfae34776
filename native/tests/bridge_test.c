/* The bridge against the stub. Prints "N passed, N failed"; the sanitizers and valgrind watch. */
#include <poll.h>
#include <pthread.h>

#include "bridge_test.h"

int passed, failed;

fz_params params(int32_t max_tokens) {
    return (fz_params){.max_tokens = max_tokens, .top_p = 1, .repeat_penalty = 1, .timeout_ms = 60000};
}

void look(fz_engine *e, fz_stats *st) {
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    fz_stats_get(e, st);
}

static void wait_ready(fz_engine *e) {
    struct pollfd p = {.fd = fz_eventfd(e), .events = POLLIN};
    poll(&p, 1, 2000);
}

result finish(fz_engine *e, uint64_t s) {
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

uint64_t session(fz_engine *e) {
    uint64_t s = 0;
    CHECK(fz_session_open(e, &s) == FZ_OK);
    return s;
}

int32_t submit(fz_engine *e, uint64_t s, const char *prompt, const fz_params *p) {
    int32_t tokens[4096], n = fz_tokenize(e, prompt, (int32_t)strlen(prompt), 0, 0, tokens, 4096);
    char err[200] = "";
    return fz_submit(e, s, tokens, n, p, err, sizeof err);
}

void expected(int32_t *all, int32_t n, int32_t count, char *text) {
    for (int32_t i = 0; i < count; i++) {
        all[n + i] = stub_next(all, n + i);
        text[i] = (char)all[n + i];
    }
    text[count] = 0;
}

void *grammar(void *engine) {
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

/* With four at once; then one at a time, by turns, of texts that go round in circles, so that drafts are tried and said. */
static void test_threads(void) {
    float circle[STUB_LETTERS * STUB_LETTERS];
    for (int32_t i = 0; i < STUB_LETTERS * STUB_LETTERS; i++) circle[i] = (float)(i * 5 % 7);
    for (int drafts = 0; drafts < 2; drafts++) {
        stub_reset();
        if (drafts) stub_chain(circle);
        stub_decode_us(100);
        fz_options o = PLAIN;
        o.n_ctx = 512;
        o.n_slots = drafts ? 1 : 4;
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
        CHECK(!drafts || st.draft_accepted > 50);
        fz_shutdown(e);
        pthread_join(threads[8], NULL);
        fz_close(e);
    }
}

int main(void) {
    run_conversation_tests();
    run_masks_tests();
    run_drafts_tests();
    run_sample_tests();
    run_distribution_tests();
    RUN(test_threads);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
