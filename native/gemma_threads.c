/*
 * How many threads decode. All cores are the quickest on a quiet machine; on one whose cores have other work the threads
 * wait for each other at every operation, and one alone is several times as quick. So the choices are measured at the
 * start, and again when decodes take far longer than they did: each choice takes some of the decodes that are due.
 */
#include <string.h>

#include "gemma_internal.h"

/* A decode counts as slow when it takes more than twice what is known; after so many of them, more slow than not, a trial
 * gives each choice some decodes. A trial that changes nothing makes the pause before the next one longer. */
enum { SLOW_MILLE = 2000, SLOW_DECODES = 8, DECODES_EACH = 2, PAUSE = 64, LONGEST_PAUSE = 4096 };

void fz_threads_init(fz_threads *t, int32_t most, bool measured) {
    memset(t, 0, sizeof *t);
    for (int32_t k = most; k >= 1 && t->n < FZ_CHOICES; k /= 2) t->choice[t->n++] = k;
    if (!measured) t->n = 1;
    t->pause = PAUSE;
}

static void begin_trial(fz_threads *t) {
    for (int32_t i = 0; i < t->n; i++) t->best[i] = INT64_MAX;
    t->before = t->at;
    t->trial = t->n * DECODES_EACH;
    t->at = 0;
}

/* A choice of fewer threads must be better by a tenth: they are worse as soon as the machine is quiet again. */
static void end_trial(fz_threads *t) {
    t->at = 0;
    for (int32_t i = 1; i < t->n; i++)
        if (t->best[i] < t->best[t->at] - t->best[t->at] / 10) t->at = i;
    t->pause = t->at != t->before ? PAUSE : t->pause < LONGEST_PAUSE ? t->pause * 2 : t->pause;
    t->rest = t->pause;
    t->slow = 0;
}

int32_t fz_threads_next(fz_threads *t, int64_t took_us, int64_t known_us) {
    if (t->n < 2 || known_us <= 0) return t->choice[t->at];
    int64_t mille = took_us * 1000 / known_us;
    if (t->trial > 0) {
        if (mille < t->best[t->at]) t->best[t->at] = mille;
        if (--t->trial == 0) end_trial(t);
        else t->at = t->n - 1 - (t->trial - 1) / DECODES_EACH;
        return t->choice[t->at];
    }
    t->slow = mille > SLOW_MILLE ? t->slow + 1 : t->slow > 0 ? t->slow - 1 : 0;
    if (t->rest > 0) t->rest--;
    bool fewer = t->at > 0; /* perhaps the machine is quiet again */
    if (t->rest == 0 && (t->slow >= SLOW_DECODES || fewer)) begin_trial(t);
    return t->choice[t->at];
}
