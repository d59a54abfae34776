/*
 * The next token from a row of logits. The order is llama.cpp's: mask, repeat penalty, top-k, top-p, min-p,
 * temperature. A vocabulary has 262,144 entries, so nothing here sorts or copies it: whole passes are plain loops
 * over floats that the compiler turns into vector code, and only the few tokens near the top become candidates.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gemma_internal.h"

enum { BLOCK = 256, LANES = 32 };
/* Up to so many tokens are taken one by one and sorted; more are counted into bins of 1/64 of a logit first. */
enum { FEW = 1024, BINS = 2048, ROW = BINS + 1, ROWS = 4 };
#define BINS_PER_LOGIT 64.0f
/* Below this temperature the likeliest token has all of the probability that a float can say. */
#define GREEDY_BELOW 1e-6f

/* PCG-XSH-RR 64/32, twice for 53 bits. */
static uint32_t pcg(fz_rng *rng) {
    uint64_t old = rng->state;
    rng->state = old * 6364136223846793005ULL + rng->step;
    uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27), turn = (uint32_t)(old >> 59);
    return (shifted >> turn) | (shifted << ((32 - turn) & 31));
}

void fz_rng_seed(fz_rng *rng, uint32_t seed) {
    rng->state = 0;
    rng->step = 0xDA3E39CB94B95BDBULL | 1;
    pcg(rng);
    rng->state += seed;
    pcg(rng);
}

double fz_rng_next(fz_rng *rng) {
    uint64_t high = pcg(rng) >> 5, low = pcg(rng) >> 6;
    return ((double)high * 67108864.0 + (double)low) / 9007199254740992.0;
}

bool fz_sampler_init(fz_sampler *s, int32_t n_vocab) {
    s->n_vocab = n_vocab;
    s->items = malloc(sizeof *s->items * (size_t)n_vocab);
    s->n_blocks = (n_vocab + BLOCK - 1) / BLOCK;
    s->tops = malloc(sizeof *s->tops * (size_t)s->n_blocks * 3);
    if (!s->items || !s->tops) return false;
    s->sums = s->tops + s->n_blocks;
    s->order = s->sums + s->n_blocks;
    return true;
}

void fz_sampler_free(fz_sampler *s) {
    free(s->items);
    free(s->tops);
    s->items = NULL;
    s->tops = s->sums = s->order = NULL;
}

/* e^x for -87 <= x <= 0, to about 1e-7 of its value; without a branch, so that it becomes vector code. */
static inline float exp_clamped(float x) {
    float t = x * 1.44269504f;
    int32_t i = (int32_t)(t - 0.5f);
    float f = (t - (float)i) * 0.69314718f;
    float p = 1.0f + f * (1.0f + f * (0.5f + f * (0.16666667f + f * (0.041666667f + f * (0.0083333333f
            + f * 0.0013888889f)))));
    int32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += i * (1 << 23); /* p is 0.7 to 1.5: its exponent takes i without leaving the range */
    memcpy(&p, &bits, sizeof p);
    return p;
}

static inline float exp_below(float x) { return exp_clamped(x > -87.0f ? x : -87.0f); }

/* Pointers that go forward: extensions of Python are compiled with -fwrapv, under which an index that is added up in 32
 * bits may wrap, and the compiler gathers every float on its own instead of loading sixteen: five times the time. */
static float block_max(const float *x, int32_t n) {
    float lane[LANES];
    const float *end = x + n;
    for (size_t j = 0; j < LANES; j++) lane[j] = -INFINITY;
    for (; end - x >= LANES; x += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] = x[j] > lane[j] ? x[j] : lane[j];
    for (; x < end; x++) lane[0] = *x > lane[0] ? *x : lane[0];
    for (size_t j = 1; j < LANES; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}

static float block_sum(const float *x, int32_t n, float max, float scale) {
    float lane[LANES] = {0}, y[LANES];
    const float *end = x + n;
    for (; end - x >= LANES; x += LANES) { /* in two loops: together, the clamp would become a branch */
        for (size_t j = 0; j < LANES; j++) {
            float below = (x[j] - max) * scale;
            y[j] = below > -87.0f ? below : -87.0f;
        }
        for (size_t j = 0; j < LANES; j++) lane[j] += exp_clamped(y[j]);
    }
    for (; x < end; x++) lane[0] += exp_below((*x - max) * scale);
    float sum = 0;
    for (int j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

/* As block_sum, of what is at least `least`. */
static float block_sum_above(const float *x, int32_t n, float max, float scale, float least) {
    float lane[LANES] = {0}, y[LANES], counts[LANES];
    const float *end = x + n;
    for (; end - x >= LANES; x += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            float below = (x[j] - max) * scale;
            y[j] = below > -87.0f ? below : -87.0f;
        }
        for (size_t j = 0; j < LANES; j++) counts[j] = x[j] >= least ? 1.0f : 0.0f;
        for (size_t j = 0; j < LANES; j++) lane[j] += exp_clamped(y[j]) * counts[j];
    }
    for (; x < end; x++) lane[0] += *x >= least ? exp_below((*x - max) * scale) : 0.0f;
    float sum = 0;
    for (int j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

static int32_t block_len(const fz_sampler *s, int32_t b) {
    int32_t left = s->n_vocab - b * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

/* Fills s->sums with each block's mass at this scale (1 / temperature); returns the whole. */
static double mass(fz_sampler *s, const float *logits, float max, float scale) {
    double whole = 0;
    for (int32_t b = 0; b < s->n_blocks; b++) {
        s->sums[b] = block_sum(logits + b * BLOCK, block_len(s, b), max, scale);
        whole += s->sums[b];
    }
    return whole;
}

/* The likeliest token; the lowest number of equals, as llama.cpp's greedy sampler. The one pass over all logits that
 * every way of sampling needs: s->tops keeps the largest of each block, so that later steps look into few of them. */
static int32_t argmax(fz_sampler *s, const float *logits, float *max) {
    int32_t best = -1;
    *max = -INFINITY;
    for (int32_t b = 0; b < s->n_blocks; b++) {
        s->tops[b] = block_max(logits + b * BLOCK, block_len(s, b));
        if (s->tops[b] > *max) {
            *max = s->tops[b];
            best = b * BLOCK;
        }
    }
    if (best < 0) return -1;
    while (logits[best] != *max) best++;
    return best;
}

static void apply_mask(float *logits, int32_t n, const uint32_t *mask) {
    for (int32_t w = 0; w * 32 < n; w++) {
        uint32_t bits = mask[w];
        if (bits == UINT32_MAX) continue;
        float *x = logits + w * 32;
        if (n - w * 32 >= 32) { /* vector code: no branch for a bit */
            for (uint32_t j = 0; j < 32; j++) x[j] = bits >> j & 1 ? x[j] : -INFINITY;
            continue;
        }
        for (int32_t j = 0; j < n - w * 32; j++)
            if (!(bits >> j & 1)) x[j] = -INFINITY;
    }
}

/* Under a narrow mask only its own tokens are looked at. */
static int32_t argmax_masked(const float *logits, int32_t n, const uint32_t *mask) {
    int32_t best = -1;
    float max = -INFINITY;
    for (int32_t w = 0; w * 32 < n; w++)
        for (uint32_t bits = mask[w]; bits; bits &= bits - 1) {
            int32_t token = w * 32 + __builtin_ctz(bits);
            if (token >= n) break;
            if (logits[token] > max || (best < 0 && logits[token] == max)) {
                max = logits[token];
                best = token;
            }
        }
    return best;
}

static void penalise(float *logits, int32_t n, float penalty, const int32_t *recent, int32_t n_recent) {
    for (int32_t i = 0; i < n_recent; i++) {
        bool seen = recent[i] < 0 || recent[i] >= n;
        for (int32_t k = 0; k < i && !seen; k++) seen = recent[k] == recent[i];
        if (seen) continue;
        float *x = logits + recent[i];
        *x = *x > 0 ? *x / penalty : *x * penalty;
    }
}

static int by_logit(const void *left, const void *right) {
    const fz_candidate *a = left, *b = right;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->token < b->token ? -1 : a->token > b->token;
}

/* Tokens with at least this logit, unsorted; `most` + 1 when there are more of them than that. */
static int32_t gather(fz_sampler *s, const float *logits, float least, int32_t most) {
    int32_t n = 0;
    for (int32_t b = 0; b < s->n_blocks; b++) {
        if (s->tops[b] < least) continue;
        for (int32_t i = b * BLOCK, end = i + block_len(s, b); i < end; i++) {
            if (!(logits[i] >= least && logits[i] > -INFINITY)) continue;
            if (n == most) return most + 1;
            s->items[n++] = (fz_candidate){logits[i], i};
        }
    }
    return n;
}

/* The tokens that a narrow mask allows, unsorted; FEW + 1 when it allows more. */
static int32_t gather_masked(fz_sampler *s, const float *logits, const uint32_t *mask) {
    int32_t n = 0, n_vocab = s->n_vocab;
    for (int32_t w = 0; w * 32 < n_vocab; w++)
        for (uint32_t bits = mask[w]; bits; bits &= bits - 1) {
            int32_t token = w * 32 + __builtin_ctz(bits);
            if (token >= n_vocab) break;
            if (logits[token] == -INFINITY) continue;
            if (n == FEW) return FEW + 1;
            s->items[n++] = (fz_candidate){logits[token], token};
        }
    return n;
}

/* The k-th largest of `x`, which is reordered (Hoare's selection). */
static float kth_largest(float *x, int32_t n, int32_t k) {
    int32_t from = 0, to = n - 1, at = k - 1;
    while (from < to) {
        float pivot = x[at];
        int32_t i = from, j = to;
        do {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i <= j) {
                float kept = x[i];
                x[i++] = x[j];
                x[j--] = kept;
            }
        } while (i <= j);
        if (j < at) from = i;
        if (i > at) to = j;
    }
    return x[at];
}

/* The `k` likeliest, sorted. At least k tokens reach the k-th largest of the blocks' tops, and few more do. */
static int32_t top_k(fz_sampler *s, const float *logits, int32_t k) {
    float least = -INFINITY;
    if (k <= s->n_blocks) {
        memcpy(s->order, s->tops, sizeof *s->order * (size_t)s->n_blocks);
        least = kth_largest(s->order, s->n_blocks, k);
    }
    int32_t n = gather(s, logits, least, s->n_vocab);
    qsort(s->items, (size_t)n, sizeof *s->items, by_logit);
    return n < k ? n : k;
}

/* Adds the mass of a block's tokens into bins by their distance from `top`; what is outside of them goes into the last,
 * which is nobody's. In four rows of bins, because additions to one and the same bin wait for each other. */
static void fill_block(const float *x, int32_t n, float max, float top, float per_logit, float *bins) {
    float y[LANES], at[LANES];
    int32_t bin[LANES];
    const float *end = x + n;
    for (; end - x >= LANES; x += LANES) { /* in several loops, all but the last of vector code */
        for (size_t j = 0; j < LANES; j++) {
            float below = x[j] - max;
            y[j] = below > -87.0f ? below : -87.0f;
        }
        for (size_t j = 0; j < LANES; j++) {
            float d = (top - x[j]) * per_logit;
            at[j] = d >= 0.0f ? d : (float)BINS;
        }
        for (size_t j = 0; j < LANES; j++) at[j] = at[j] < (float)BINS ? at[j] : (float)BINS;
        for (size_t j = 0; j < LANES; j++) bin[j] = (int32_t)at[j];
        for (size_t j = 0; j < LANES; j++) y[j] = exp_clamped(y[j]);
        for (size_t j = 0; j < LANES; j += ROWS) {
            bins[bin[j]] += y[j];
            bins[ROW + bin[j + 1]] += y[j + 1];
            bins[2 * ROW + bin[j + 2]] += y[j + 2];
            bins[3 * ROW + bin[j + 3]] += y[j + 3];
        }
    }
    for (; x < end; x++) {
        float d = (top - *x) * per_logit;
        if (d >= 0 && d < BINS) bins[(int32_t)d] += exp_below(*x - max);
    }
}

/* All blocks into bins, `per_logit` of them a logit. */
static void fill_bins(const fz_sampler *s, const float *logits, float max, float top, float per_logit, float *bins) {
    memset(bins, 0, sizeof *bins * ROW * ROWS);
    for (int32_t b = 0; b < s->n_blocks; b++)
        if (s->tops[b] >= top - BINS / per_logit)
            fill_block(logits + b * BLOCK, block_len(s, b), max, top, per_logit, bins);
    for (int32_t k = 0; k < BINS; k++) bins[k] += bins[ROW + k] + bins[2 * ROW + k] + bins[3 * ROW + k];
}

/* The bin in which the mass reaches `*need`; `*need` is then what is needed of that bin. */
static int32_t bin_that_reaches(const float *bins, double *need) {
    int32_t k = 0;
    while (k < BINS - 1 && (double)bins[k] < *need) *need -= (double)bins[k++];
    return k;
}

/* The least logit of the fewest of the likeliest tokens that hold `need`, in a flat distribution: twice into bins, and
 * what is still together then differs by less than a hundred-thousandth. */
static float nucleus_floor(const fz_sampler *s, const float *logits, float max, double need) {
    float bins[ROW * ROWS];
    fill_bins(s, logits, max, max, BINS_PER_LOGIT, bins);
    int32_t k = bin_that_reaches(bins, &need);
    if (k == BINS - 1) return -INFINITY;
    float top = max - (float)k / BINS_PER_LOGIT;
    fill_bins(s, logits, max, top, BINS_PER_LOGIT * BINS, bins);
    k = bin_that_reaches(bins, &need);
    return top - (float)(k + 1) / (BINS_PER_LOGIT * BINS);
}

/* The fewest of the likeliest that hold `p` of the probability. When they are few they are the first of the items,
 * sorted, and their number is returned; otherwise 0, and `*least` is their least logit. */
static int32_t nucleus(fz_sampler *s, const float *logits, float max, float p, float *least) {
    double need = mass(s, logits, max, 1) * (double)p;
    for (float below = 4; below < 64; below *= 2) {
        int32_t n = gather(s, logits, max - below, FEW);
        if (n > FEW) break;
        double sum = 0;
        for (int32_t i = 0; i < n; i++) sum += (double)exp_below(s->items[i].logit - max);
        if (sum < need) continue;
        qsort(s->items, (size_t)n, sizeof *s->items, by_logit);
        sum = 0;
        for (int32_t i = 0; i < n; i++)
            if ((sum += (double)exp_below(s->items[i].logit - max)) >= need) return i + 1;
        return n;
    }
    *least = nucleus_floor(s, logits, max, need);
    return 0;
}

/* top-p among sorted candidates, by their own probabilities (after top-k). */
static int32_t cut_p(const fz_sampler *s, int32_t n, float p) {
    double whole = 0, sum = 0;
    for (int32_t i = 0; i < n; i++) whole += (double)exp_below(s->items[i].logit - s->items[0].logit);
    for (int32_t i = 0; i < n; i++)
        if ((sum += (double)exp_below(s->items[i].logit - s->items[0].logit)) >= whole * (double)p) return i + 1;
    return n;
}

static int32_t draw(const fz_sampler *s, int32_t n, float temperature, double u) {
    double whole = 0, sum = 0;
    float scale = 1 / temperature, max = s->items[0].logit;
    for (int32_t i = 0; i < n; i++) whole += (double)exp_below((s->items[i].logit - max) * scale);
    for (int32_t i = 0; i < n; i++)
        if ((sum += (double)exp_below((s->items[i].logit - max) * scale)) > u * whole) return s->items[i].token;
    return s->items[n - 1].token;
}

/* From all tokens with at least this logit: find the block first, then the token within it. */
static int32_t draw_above(fz_sampler *s, const float *logits, float max, float least, float temperature, double u) {
    float scale = 1 / temperature;
    double whole = 0;
    for (int32_t b = 0; b < s->n_blocks; b++) {
        const float *x = logits + b * BLOCK;
        s->sums[b] = s->tops[b] < least ? 0 : least == -INFINITY ? block_sum(x, block_len(s, b), max, scale)
                                            : block_sum_above(x, block_len(s, b), max, scale, least);
        whole += (double)s->sums[b];
    }
    double left = u * whole;
    int32_t b = 0, last = s->n_blocks - 1;
    while (b < last && left >= (double)s->sums[b]) left -= (double)s->sums[b++];
    int32_t chosen = -1;
    for (int32_t i = b * BLOCK; i < s->n_vocab; i++) {
        if (logits[i] == -INFINITY || logits[i] < least) continue;
        chosen = i;
        left -= (double)exp_below((logits[i] - max) * scale);
        if (left < 0) break;
    }
    if (chosen >= 0) return chosen;
    float ignored; /* rounding led past the last allowed token */
    return argmax(s, logits, &ignored);
}

/* Among the first `n` items, sorted: min-p, then the draw. */
static int32_t draw_sorted(const fz_sampler *s, int32_t n, const fz_params *p, double u) {
    if (p->min_p > 0) {
        float least = s->items[0].logit + logf(p->min_p);
        while (n > 1 && s->items[n - 1].logit < least) n--;
    }
    return draw(s, n, p->temperature, u);
}

/* Among the tokens of a narrow mask, which are the items: the vocabulary is not looked at again. */
static int32_t sample_few(fz_sampler *s, int32_t n, const fz_params *p, fz_rng *rng) {
    qsort(s->items, (size_t)n, sizeof *s->items, by_logit);
    if (p->top_k > 0 && p->top_k < n) n = p->top_k;
    if (p->top_p < 1) n = cut_p(s, n, p->top_p);
    return draw_sorted(s, n, p, fz_rng_next(rng));
}

int32_t fz_sample(fz_sampler *s, float *logits, const uint32_t *mask, const fz_params *p, fz_rng *rng,
                  const int32_t *recent, int32_t n_recent) {
    int32_t n_vocab = s->n_vocab, n;
    float max, least = -INFINITY;
    if (p->repeat_penalty != 1) penalise(logits, n_vocab, p->repeat_penalty, recent, n_recent);
    if (p->temperature < GREEDY_BELOW) return mask ? argmax_masked(logits, n_vocab, mask) : argmax(s, logits, &max);
    if (mask) {
        n = gather_masked(s, logits, mask);
        if (n == 0) return -1;
        if (n <= FEW) return sample_few(s, n, p, rng);
        apply_mask(logits, n_vocab, mask);
    }
    int32_t best = argmax(s, logits, &max);
    if (best < 0) return -1;
    double u = fz_rng_next(rng);
    if (p->top_k > 0 && p->top_k < n_vocab) {
        n = top_k(s, logits, p->top_k);
        if (p->top_p < 1) n = cut_p(s, n, p->top_p);
        return n > 0 ? draw_sorted(s, n, p, u) : best;
    }
    if (p->top_p < 1) {
        n = nucleus(s, logits, max, p->top_p, &least);
        if (n > 0) return draw_sorted(s, n, p, u);
    }
    if (p->min_p > 0 && max + logf(p->min_p) > least) least = max + logf(p->min_p);
    return draw_above(s, logits, max, least, p->temperature, u);
}
