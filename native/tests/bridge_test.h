/* What the tests of the bridge against the stub share: counted checks, an engine over the stub, generations to their end. */
#ifndef FAZAI_BRIDGE_TEST_H
#define FAZAI_BRIDGE_TEST_H

#include <stdbool.h>

#include "check.h"

static const fz_options PLAIN = {.n_ctx = 2048, .n_threads = 1, .n_slots = 4, .n_sessions = 16, .n_queue = 8};

typedef struct result {
    char text[20000];
    int32_t len;
    fz_progress end;
} result;

fz_params params(int32_t max_tokens);

/* For a loop that waits for what it says: one that never gives way stops the others under valgrind. */
void look(fz_engine *e, fz_stats *st);

/* Reads one session to its end; other sessions' notes stay for later reads of theirs. */
result finish(fz_engine *e, uint64_t s);
uint64_t session(fz_engine *e);
int32_t submit(fz_engine *e, uint64_t s, const char *prompt, const fz_params *p);

/* What a fresh run of the stub says after `all` tokens; they are extended. */
void expected(int32_t *all, int32_t n, int32_t count, char *text);

/* A thread that owns the masks of a grammar: "{" digits... "}" where `{` is forced at the start and "ab" after each digit. */
void *grammar(void *engine);

void run_conversation_tests(void);
void run_masks_tests(void);
void run_drafts_tests(void);
void run_sample_tests(void);
void run_distribution_tests(void);

#endif
