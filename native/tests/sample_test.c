/* How the next token is drawn, how many threads decode, and how many sessions at once. */
#include <math.h>
#include <pthread.h>

#include "bridge_test.h"

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

void run_sample_tests(void) {
    RUN(test_numbers_of_threads);
    RUN(test_threads_of_a_busy_machine);
    RUN(test_sampling);
    RUN(test_a_flat_nucleus);
    RUN(test_narrow_masks_and_low_temperatures);
    RUN(test_plan);
    RUN(test_plan_is_mended);
    RUN(test_calibration);
}
