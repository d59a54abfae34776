/*
 * How many sequences to decode at once. On a CPU two at once can cost more than one after the other (the kernels work
 * on four or eight rows), while eight cost a quarter each; so the cost of every batch is measured when the engine
 * starts, and a round over n ready sessions is cut into the batches that cost least in all. A machine that was busy at
 * the start, or is later, would leave a wrong plan for ever: what decodes take corrects it.
 */
#include <stdlib.h>
#include <string.h>

#include "gemma_internal.h"

enum { REPEATS = 5, PREFIX = 8, THREAD_REPEATS = 3 };
/* How long each kind of measurement may take; each size is measured once in any case, and what decodes take mends it. */
enum { MEASURE_US = 600000 };

/* Microseconds of one decode, or -1. */
static int64_t timed(fz_engine *e) {
    int64_t from = fz_now_us();
    if (fz_rows_decode(e) != 0) return -1;
    return fz_now_us() - from;
}

/* One decode over k sequences, or -1. */
static int64_t cost_of(fz_engine *e, int32_t k, int32_t turn) {
    e->batch.n_tokens = 0;
    for (int32_t s = 0; s < k; s++) fz_batch_put(e, 1 + (turn * 31 + s) % (e->n_vocab - 1), PREFIX, s, true);
    int64_t took = timed(e);
    for (int32_t s = 0; s < k; s++) llama_memory_seq_rm(e->memory, s, PREFIX, -1);
    return took;
}

/* The sizes of batches that are measured, the most telling first: one, all, then up to eight each, then every eighth. */
static int32_t sizes_of(int32_t n, int32_t *sizes) {
    int32_t count = 0;
    sizes[count++] = 1;
    if (n > 1) sizes[count++] = n;
    for (int32_t k = 2; k < n; k += k < 8 ? 1 : 8) sizes[count++] = k;
    return count;
}

/* Least cost of each measured size, others stay 0; returns the largest that could be measured. The sizes take turns, so
 * that a machine that is busy for a second slows all of them; what else runs on it only ever adds, so the least counts. */
static int32_t measure(fz_engine *e, fz_costs *costs, int32_t n) {
    int32_t sizes[FZ_MAX_SLOTS], count = sizes_of(n, sizes), most = n;
    int64_t until = fz_now_us() + MEASURE_US;
    for (int32_t turn = 0; turn < REPEATS; turn++)
        for (int32_t i = 0; i < count; i++) {
            int32_t k = sizes[i];
            if (k > most) continue;
            if ((turn > 0 || i > 1) && fz_now_us() >= until) return most;
            int64_t took = cost_of(e, k, turn);
            if (took < 0) most = k - 1;
            else if (costs->us[k - 1] == 0 || took < costs->us[k - 1]) costs->us[k - 1] = took;
        }
    return most;
}

/* How many threads decode: the quickest of the choices, which take turns. Fewer must be better by a tenth. */
static void measure_threads(fz_engine *e) {
    fz_threads *t = &e->threads;
    int64_t least[FZ_CHOICES], until = fz_now_us() + MEASURE_US;
    for (int32_t turn = 0; turn < THREAD_REPEATS && (turn == 0 || fz_now_us() < until); turn++)
        for (int32_t i = 0; i < t->n && t->n > 1; i++) {
            llama_set_n_threads(e->ctx, t->choice[i], t->choice[i]);
            int64_t took = cost_of(e, 1, turn);
            if (turn == 0 || (took > 0 && took < least[i])) least[i] = took > 0 ? took : INT64_MAX;
        }
    for (int32_t i = 1; i < t->n; i++)
        if (least[i] < least[t->at] - least[t->at] / 10) t->at = i;
    e->stats.n_threads = t->choice[t->at];
    llama_set_n_threads(e->ctx, e->stats.n_threads, e->stats.n_threads);
}

void fz_plan_from(fz_costs *costs, int32_t n) {
    int64_t best[FZ_MAX_SLOTS + 1] = {0};
    for (int32_t r = 1; r <= n; r++) {
        best[r] = INT64_MAX;
        for (int32_t k = 1; k <= r; k++) {
            int64_t all = best[r - k] + costs->us[k - 1];
            if (all < best[r]) {
                best[r] = all;
                costs->plan[r - 1] = k;
            }
        }
    }
}

/* Less is believed at once, for what else runs on a machine only ever adds; more by and by. */
void fz_plan_learn(fz_costs *costs, int32_t k, int64_t took_us) {
    if (k < 1 || k > costs->n || costs->us[k - 1] <= 0) return; /* without calibration there is no plan to mend */
    int64_t known = costs->us[k - 1];
    costs->us[k - 1] = took_us < known ? took_us : known + (took_us - known) / 32;
    fz_plan_from(costs, costs->n);
}

/* A chunk of a prompt that holds running streams up for no longer than stall_ms. */
static int32_t chunk_of(fz_engine *e) {
    enum { PROBE = 64 };
    int64_t least = INT64_MAX, until = fz_now_us() + MEASURE_US;
    for (int r = 0; r < 3 && (r == 0 || fz_now_us() < until); r++) {
        e->batch.n_tokens = 0;
        for (int32_t i = 0; i < PROBE; i++) fz_batch_put(e, 1 + i % (e->n_vocab - 1), PREFIX + i, 0, i == PROBE - 1);
        int64_t took = timed(e);
        llama_memory_seq_rm(e->memory, 0, PREFIX, -1);
        if (took <= 0) return PROBE;
        if (took < least) least = took;
    }
    int64_t chunk = (int64_t)e->opt.stall_ms * 1000 * PROBE / least / 16 * 16;
    return (int32_t)(chunk < 16 ? 16 : chunk > FZ_BATCH ? FZ_BATCH : chunk);
}

/* Measures what decodes of up to `n` sequences cost; what lies between two measured sizes is on a line. */
static void measure_costs(fz_engine *e, fz_costs *costs, int32_t n) {
    int32_t last = 0;
    memset(costs->us, 0, sizeof costs->us);
    costs->n = measure(e, costs, n);
    for (int32_t k = 1; k <= costs->n; k++) {
        int64_t cost = costs->us[k - 1];
        if (cost == 0) continue;
        for (int32_t j = last + 1; last > 0 && j < k; j++)
            costs->us[j - 1] = costs->us[last - 1] + (cost - costs->us[last - 1]) * (j - last) / (k - last);
        last = k;
    }
    for (int32_t j = last + 1; last > 0 && j <= n; j++) costs->us[j - 1] = costs->us[last - 1] * j / last;
    if (last > 0) fz_plan_from(costs, n);
}

/* A short beginning in every sequence; the first decode warms up, too. */
static void begin_sequences(fz_engine *e, int32_t n) {
    e->batch.n_tokens = 0;
    for (int32_t s = 0; s < n; s++)
        for (int32_t i = 0; i < PREFIX; i++) fz_batch_put(e, 1 + i % (e->n_vocab - 1), i, s, i == PREFIX - 1);
    timed(e);
}

void fz_calibrate(fz_engine *e) {
    fz_stats *st = &e->stats;
    int32_t n = e->opt.n_slots;
    st->costs.n = n;
    st->chunk = 64;
    for (int32_t k = 0; k < n; k++) st->costs.plan[k] = k + 1;
    st->short_costs = st->costs;
    if (!e->opt.calibrate) {
        fz_rows_open(e);
        return;
    }
    begin_sequences(e, n);
    measure_threads(e);
    fz_rows_open(e);
    uint32_t whole_sizes = e->rows.whole_sizes;
    e->rows.whole_sizes = 0; /* until both ways are measured */
    measure_costs(e, &st->costs, n);
    e->rows.wanted = e->rows.timing = e->rows.state == FZ_ROWS_ON;
    if (e->rows.timing) {
        measure_costs(e, &st->short_costs, n);
        fz_rows_measure(e, whole_sizes);
    }
    e->rows.wanted = e->rows.timing = false;
    st->chunk = chunk_of(e);
    llama_memory_clear(e->memory, true);
}
