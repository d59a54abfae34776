/* What the tests of how clients share have in common: decodes are allowed one by one and counted. */
#ifndef FAZAI_FAIR_TEST_H
#define FAZAI_FAIR_TEST_H

#include <pthread.h>

#include "check.h"

void run_passes_tests(void); /* passes_test.c */

enum { PROMPT = 12, EVERYTHING = 100000, MOST = 4096 };
static const fz_options PLAIN = {
    .n_ctx = 8192, .n_threads = 1, .n_slots = 4, .n_sessions = 64, .n_queue = 32, .drafts = FZ_DRAFTS_OFF, .out_limit = 1 << 20,
};

/* A prompt of `n` characters whose first one is told apart by stub_took. */
static inline int32_t ask(fz_engine *e, uint64_t *s, char first, int32_t n, int32_t max_tokens, uint32_t user, uint32_t client) {
    int32_t tokens[MOST];
    char err[200] = "";
    fz_params p = {.max_tokens = max_tokens, .top_p = 1, .repeat_penalty = 1, .timeout_ms = 3600000, .user = user, .client = client};
    static int32_t number;
    tokens[0] = first;
    for (int32_t i = 1; i < n; i++) tokens[i] = i < 9 ? '0' + (number >> 3 * (i - 1)) % 8 : 'x';
    number++;
    if (*s == 0 && fz_session_open(e, s) != FZ_OK) return FZ_E_OVERLOADED;
    return fz_submit(e, *s, tokens, n, &p, err, sizeof err);
}

static inline void pause_a_little(void) { nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL); }

/* So many decodes; afterwards one waits, with what was to be decoded when it was composed, or nothing is left to do. */
static inline void decode(fz_engine *e, int32_t n) {
    stub_allow(n);
    fz_stats st;
    do {
        pause_a_little();
        fz_stats_get(e, &st);
    } while (!stub_waits() && st.running + st.queued > 0);
}

static inline fz_progress look(fz_engine *e, uint64_t s, char *text, int32_t cap) {
    fz_progress p;
    int32_t n = fz_take(e, s, text, cap - 1, &p);
    text[n > 0 ? n : 0] = 0;
    return p;
}

static inline bool ended(fz_engine *e, uint64_t s) {
    char text[64];
    fz_progress p = look(e, s, text, sizeof text);
    return p.reason != FZ_RUNNING;
}

static inline int32_t tokens_of(fz_engine *e, uint64_t s) {
    char text[20000];
    return look(e, s, text, sizeof text).completion_tokens;
}

static inline int32_t sum_of(fz_engine *e, const uint64_t *s, int32_t n) {
    int32_t sum = 0;
    for (int32_t i = 0; i < n; i++) sum += tokens_of(e, s[i]);
    return sum;
}

/* Decodes one by one until it ended; how many, at most `most`. */
static inline int32_t decodes_to_end(fz_engine *e, uint64_t s, int32_t most) {
    int32_t n = 0;
    while (!ended(e, s) && n < most) decode(e, 1), n++;
    return n;
}

/* All slots and the whole queue, for everything: client 1 of user 1, sequences that begin with H. */
static inline void ask_for_all(fz_engine *e, uint64_t *s, int32_t n) {
    stub_allow(0);
    for (int32_t i = 0; i < n; i++) CHECK(ask(e, &s[i], 'H', PROMPT, EVERYTHING, 1, 1) == FZ_OK);
}

static inline int32_t took(int32_t from, int32_t to, char first) {
    int32_t n = 0;
    for (int32_t i = from; i < to; i++) n += stub_took(i, first);
    return n;
}

/* The most decodes in a row without such a sequence, which then had one. */
static inline int32_t longest_gap(int32_t from, char first) {
    int32_t gap = 0, longest = 0;
    for (int32_t i = from; i < stub_decodes(); i++) {
        gap++;
        if (!stub_took(i, first)) continue;
        if (gap - 1 > longest) longest = gap - 1;
        gap = 0;
    }
    return longest;
}

static inline void done(fz_engine *e) {
    CHECK(stub_misuse() == 0);
    stub_allow(-1);
    fz_close(e);
}

#endif
