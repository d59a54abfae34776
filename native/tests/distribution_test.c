/*
 * What is drawn, against its probabilities, which are computed here anew and in the plainest way: Pearson's chi-square over
 * 100,000 draws. The critical value is the one that a right sampler passes once in a thousand seeds; the seeds are fixed, so
 * what passes once passes always. A wrong rule is far from it: drafts that are always accepted give 300 in 2,000 draws, where
 * the critical value is 90.
 */
#include <math.h>
#include <pthread.h>

#include "bridge_test.h"

enum { LETTERS = STUB_LETTERS };

/* The sanitizers and valgrind look for other faults, and are slow. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { DRAWS = 10000 };
#else
enum { DRAWS = 100000 };
#endif
enum { FEWER = 5 }; /* so many times fewer where the same is said as in a case of all draws */
static int32_t n_draws(void) { return getenv("QUICK") ? 5000 : DRAWS; }

/* The value that chi-square with so many degrees of freedom passes with probability 0.001 (Wilson and Hilferty's
 * approximation; 24.3 for 7 where tables have 24.32). */
static double critical(int32_t freedom) {
    double spread = 2.0 / (9.0 * freedom), root = 1 - spread + 3.0902 * sqrt(spread);
    return freedom * root * root * root;
}

/* Adds the cells' part of the statistic; those that are expected less than five times are one cell together. Returns the
 * degrees of freedom, or -1 where something was drawn that cannot be. */
static int32_t add_chi_square(const int32_t *count, const double *share, int32_t n, double *statistic) {
    double rare = 0, all = 0;
    int32_t rarely = 0, cells = 0;
    for (int32_t i = 0; i < n; i++) all += count[i];
    for (int32_t i = 0; i < n; i++) {
        double wanted = share[i] * all;
        if (wanted == 0 && count[i] > 0) return -1;
        if (wanted < 5) {
            rare += wanted;
            rarely += count[i];
            continue;
        }
        *statistic += (count[i] - wanted) * (count[i] - wanted) / wanted;
        cells++;
    }
    if (rare >= 5) *statistic += (rarely - rare) * (rarely - rare) / rare, cells++;
    return cells > 0 ? cells - 1 : 0;
}

/* The share of each token whose bit is in the mask (NULL: of all), in llama.cpp's order of cuts. */
static void shares(const float *logits, int32_t n, const uint32_t *mask, const fz_params *p, double *share) {
    int32_t order[1024] = {0}, left = 0;
    for (int32_t t = 0; t < n; t++) {
        share[t] = 0;
        if (mask && !(mask[t / 32] >> t % 32 & 1)) continue;
        int32_t at = left++;
        for (; at > 0 && logits[order[at - 1]] < logits[t]; at--) order[at] = order[at - 1];
        order[at] = t;
    }
    double top = (double)logits[order[0]], whole = 0, sum = 0;
    if (p->top_k > 0 && p->top_k < left) left = p->top_k;
    for (int32_t i = 0; i < left; i++) whole += exp((double)logits[order[i]] - top);
    for (int32_t i = 0; i < left && p->top_p < 1; i++)
        if ((sum += exp((double)logits[order[i]] - top)) >= whole * (double)p->top_p) left = i + 1;
    while (p->min_p > 0 && exp((double)logits[order[left - 1]] - top) < (double)p->min_p) left--;
    whole = 0;
    for (int32_t i = 0; i < left; i++) whole += share[order[i]] = exp(((double)logits[order[i]] - top) / (double)p->temperature);
    for (int32_t i = 0; i < left; i++) share[order[i]] /= whole;
}

static const fz_params WAYS[] = {
    {.temperature = 1, .top_p = 1, .repeat_penalty = 1},
    {.temperature = 0.6f, .top_p = 1, .repeat_penalty = 1, .top_k = 5},
    {.temperature = 1.4f, .top_p = 0.8f, .repeat_penalty = 1},
    {.temperature = 1, .top_p = 0.95f, .repeat_penalty = 1, .top_k = 6},
    {.temperature = 1.2f, .top_p = 1, .repeat_penalty = 1, .min_p = 0.1f},
};
enum { N_WAYS = sizeof WAYS / sizeof *WAYS };

/* The sampler alone: a vocabulary of which few tokens are likely, all of it and under a mask. */
static void test_a_distribution_of_the_sampler(void) {
    enum { N = 600, LIKELY = 20 };
    static float base[N], logits[N];
    static int32_t count[N];
    static double share[N];
    uint32_t mask[(N + 31) / 32] = {0};
    fz_sampler s;
    CHECK(fz_sampler_init(&s, N));
    for (uint32_t t = 0; t < N; t++) base[t] = -5 - (float)(t * 2654435761u >> 16) / 65536.0f;
    for (int32_t i = 0; i < LIKELY; i++) {
        int32_t t = i * 29 + 3;
        base[t] = 2 - (float)i * 0.17f;
        if (i % 3) mask[t / 32] |= 1u << t % 32;
    }
    for (int32_t way = 0; way < N_WAYS; way++)
        for (int32_t masked = 0; masked < 2; masked++) {
            fz_rng rng;
            fz_rng_seed(&rng, (uint32_t)(7 + way));
            memset(count, 0, sizeof count);
            for (int32_t i = 0; i < n_draws(); i++) {
                memcpy(logits, base, sizeof base);
                int32_t t = fz_sample(&s, logits, masked ? mask : NULL, &WAYS[way], &rng, NULL, 0);
                if (t < 0) break;
                count[t]++;
            }
            double found = 0;
            shares(base, N, masked ? mask : NULL, &WAYS[way], share);
            int32_t freedom = add_chi_square(count, share, N, &found);
            CHECK(freedom > 0 && found < critical(freedom));
            if (getenv("VERBOSE")) fprintf(stderr, "  way %d, %s: %.1f of %d\n", way, masked ? "masked" : "all", found, freedom);
        }
    fz_sampler_free(&s);
}

/* The masks of a grammar that lets the letters. */
static void *lets_letters(void *engine) {
    fz_engine *e = engine;
    fz_mask_job job;
    int32_t code;
    while ((code = fz_mask_next(e, 50, &job)) >= 0) {
        if (code == 1) continue;
        fz_mask_ff(e, job.session, job.serial, NULL, 0, 0);
        memset(job.bits, 0, sizeof *job.bits * (size_t)job.n_words);
        for (int c = 'a'; c < 'a' + LETTERS; c++) job.bits[c / 32] |= 1u << c % 32;
        fz_mask_ready(e, job.session, job.serial, FZ_OK);
    }
    return NULL;
}

typedef struct drawn {
    int32_t after[LETTERS][LETTERS]; /* how often each letter came after each */
    uint64_t hash;                   /* of the beginning of the text */
    fz_stats stats;
} drawn;

/* As many letters as are wanted, of generations one after the other, by the chain of these logits. */
static drawn draw_letters(const fz_options *o, bool constrained, const float *chain, const fz_params *way, int32_t wanted) {
    enum { EACH = 1000 };
    stub_reset();
    stub_chain(chain);
    drawn d = {.hash = 14695981039346656037ULL};
    fz_engine *e = opened(o);
    pthread_t thread;
    if (constrained) pthread_create(&thread, NULL, lets_letters, e);
    for (int32_t i = 0; i < wanted; i += EACH) {
        uint64_t s = session(e);
        fz_params p = *way;
        p.max_tokens = EACH;
        p.timeout_ms = 600000;
        p.constrained = constrained;
        p.seed = (uint32_t)i;
        CHECK(submit(e, s, "a", &p) == FZ_OK);
        result r = finish(e, s);
        CHECK(r.len == EACH && r.end.reason == FZ_LENGTH);
        for (int32_t k = 0, before = 'a'; k < r.len; before = r.text[k++]) {
            d.after[before % LETTERS][r.text[k] % LETTERS]++;
            if (i < n_draws() / FEWER) d.hash = (d.hash ^ (uint64_t)r.text[k]) * 1099511628211ULL;
        }
        fz_session_close(e, s);
    }
    fz_stats_get(e, &d.stats);
    fz_shutdown(e);
    if (constrained) pthread_join(thread, NULL);
    CHECK(stub_misuse() == 0);
    fz_close(e);
    return d;
}

/* The rows of the chain are numbered as letters are, modulo their number; the cells by letters. */
static double chi_square_of(const drawn *d, const float *chain, const fz_params *way, int32_t *freedom) {
    double found = 0;
    *freedom = 0;
    for (int32_t before = 0; before < LETTERS; before++) {
        double by_letter[LETTERS], share[LETTERS];
        shares(chain + before * LETTERS, LETTERS, NULL, way, by_letter);
        for (int32_t i = 0; i < LETTERS; i++) share[('a' + i) % LETTERS] = by_letter[i];
        int32_t more = add_chi_square(d->after[before], share, LETTERS, &found);
        if (more < 0) return INFINITY;
        *freedom += more;
    }
    return found;
}

/* A text that repeats itself by chance, so that drafts are tried all the time and are right only sometimes: with and
 * without them, with all logits and with those of the allowed tokens, each letter comes as often as it should. */
static void test_a_distribution_with_drafts(void) {
    static const struct { int32_t way; enum fz_draft_mode drafts; bool constrained, full, fewer; } cases[] = {
        {0, FZ_DRAFTS_OFF, false, false, false}, {0, FZ_DRAFTS_EXACT, false, false, false}, {0, FZ_DRAFTS_EXACT, true, false, false},
        {0, FZ_DRAFTS_EXACT, true, true, true},  {0, FZ_DRAFTS_OFF, true, false, true},     {3, FZ_DRAFTS_EXACT, false, false, true},
        {3, FZ_DRAFTS_ALWAYS, true, false, true},
    };
    float chain[LETTERS * LETTERS];
    for (uint32_t i = 0; i < LETTERS * LETTERS; i++) chain[i] = (float)((i + 1) * 2654435761u >> 20) / 1365.0f; /* 0 to 3 */
    uint64_t hash[2] = {0};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const fz_params *way = &WAYS[cases[c].way];
        bool constrained = cases[c].constrained, on = cases[c].drafts != FZ_DRAFTS_OFF;
        int32_t wanted = cases[c].fewer ? n_draws() / FEWER : n_draws();
        fz_options o = PLAIN;
        o.drafts = (int32_t)cases[c].drafts;
        o.full_logits = cases[c].full;
        drawn d = draw_letters(&o, constrained, chain, way, wanted);
        int32_t freedom;
        double found = chi_square_of(&d, chain, way, &freedom);
        CHECK(freedom > 2 * LETTERS && found < critical(freedom));
        CHECK((d.stats.drafted > wanted / 4) == on);
        CHECK(d.stats.draft_accepted * 20 >= d.stats.drafted && d.stats.draft_accepted * 2 <= d.stats.drafted);
        CHECK((d.stats.short_decodes > wanted / 4) == (constrained && !cases[c].full));
        CHECK(cases[c].way != 0 || hash[constrained] == 0 || hash[constrained] == d.hash); /* the same text, too */
        hash[constrained] = d.hash;
        if (getenv("VERBOSE"))
            fprintf(stderr, "  case %d: %.1f of %d; %d drafted, %d accepted, %d short\n", (int)c, found, freedom,
                    (int)d.stats.drafted, (int)d.stats.draft_accepted, (int)d.stats.short_decodes);
    }
}

void run_distribution_tests(void) {
    RUN(test_a_distribution_of_the_sampler);
    RUN(test_a_distribution_with_drafts);
}
