/* Who goes first, against the stub: decodes are allowed one by one and counted, so that no clock says what is fair. */
#include "fair_test.h"

int passed, failed;

/* One client has all slots and the whole queue; another asks for five tokens: a process of the same user, then one of
 * another user; when some of the first's requests did not begin, and when all did. It is through after the decode that is
 * under way and its own five, and shares none of them. */
static void short_beside_everything(uint32_t user, int32_t before) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t all[36] = {0}, more = 0, quick = 0;
    ask_for_all(e, all, 36);
    decode(e, before);
    CHECK(ask(e, &more, 'H', PROMPT, 5, 1, 1) == FZ_E_OVERLOADED);
    CHECK(ask(e, &quick, 'Q', PROMPT, 5, user, 2) == FZ_OK);
    int32_t from = stub_decodes() + 1, lost = 0;
    CHECK(decodes_to_end(e, quick, 600) == 1 + 5);
    CHECK(took(from, from + 5, 'Q') == PROMPT + 4 && took(from, from + 5, 'H') == 0);
    CHECK(took(from - 20, from, 'H') >= 20 * 4);
    decode(e, 20);
    CHECK(took(from + 6, from + 20, 'H') >= 14 * 4); /* and the other goes on at once */
    for (int32_t i = 0; i < 36; i++) lost += ended(e, all[i]);
    CHECK(lost == (before < 576)); /* what began is not ended: it is let in beside them */
    done(e);
}

static void test_a_short_one_beside_one_that_asks_for_everything(void) {
    for (uint32_t user = 1; user <= 2; user++) {
        short_beside_everything(user, 300);
        short_beside_everything(user, 1000);
    }
}

/* Between two tokens of a plain stream there is one decode, of its row alone, as if nobody else were there. */
static void test_a_plain_stream_beside_one_that_asks_for_everything(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t all[36] = {0}, plain = 0;
    ask_for_all(e, all, 36);
    decode(e, 300);
    CHECK(ask(e, &plain, 'P', PROMPT, 400, 1, 2) == FZ_OK);
    int32_t from = stub_decodes() + 1;
    CHECK(decodes_to_end(e, plain, 3000) == 1 + 400);
    CHECK(took(from, from + 400, 'P') == PROMPT + 399 && took(from, from + 400, 'H') == 0);
    done(e);
}

/* Streams of others come one after the other and never end: whoever asked for much is passed by 512 decodes at most,
 * then shares. */
static void who_used_up_its_credit(uint32_t user) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t all[8] = {0}, plain[8] = {0};
    ask_for_all(e, all, 8);
    decode(e, 1000);
    int32_t from = stub_decodes();
    for (uint32_t i = 0; i < 8; i++) { /* the next one comes before the last one is through */
        CHECK(ask(e, &plain[i], 'P', PROMPT, 250, user, 10 + i) == FZ_OK);
        if (i > 0) decodes_to_end(e, plain[i - 1], 5000);
        decode(e, i > 0 ? 50 : 100);
    }
    int32_t longest = longest_gap(from, 'H');
    CHECK(longest == FZ_CREDIT);
    int32_t late = stub_decodes() - 500;
    CHECK(took(late, late + 500, 'H') >= 300); /* nearly as much as the others, each of whom is new */
    done(e);
}

static void test_who_used_up_its_credit_is_not_starved(void) {
    for (uint32_t user = 1; user <= 2; user++) who_used_up_its_credit(user);
}

/* Two that ask for everything share alike, whoever came first. */
static void test_two_that_ask_for_everything(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t all[16] = {0}, others[16] = {0};
    ask_for_all(e, all, 16);
    decode(e, 2000);
    for (int32_t i = 0; i < 16; i++) CHECK(ask(e, &others[i], 'O', PROMPT, EVERYTHING, 1, 2) == FZ_OK);
    decode(e, 1200);
    int32_t one = -sum_of(e, all, 16), two = -sum_of(e, others, 16);
    decode(e, 1000);
    one += sum_of(e, all, 16);
    two += sum_of(e, others, 16);
    int32_t to = stub_decodes(), computed = took(to - 1000, to, 'H') + took(to - 1000, to, 'O');
    CHECK(computed < (one + two) * 3 / 2); /* and little is computed twice */
    CHECK(one + two > 3500 && one > 0 && two > 0 && one < two + two / 5 && two < one + one / 5);
    done(e);
}

/* One client's own: each has a turn of 64 tokens, in the order in which they came; a short one behind eight long ones
 * starts after eight turns. */
static void test_turns(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_slots = 1;
    fz_engine *e = opened(&o);
    uint64_t s[9] = {0};
    stub_allow(0);
    for (int32_t i = 0; i < 8; i++) CHECK(ask(e, &s[i], (char)('A' + i), PROMPT, EVERYTHING, 1, 1) == FZ_OK);
    CHECK(ask(e, &s[8], 'Q', PROMPT, 5, 1, 1) == FZ_OK);
    int32_t from = stub_decodes();
    CHECK(decodes_to_end(e, s[8], 3000) == 8 * FZ_TURN + 5);
    for (int32_t i = 0; i < 8; i++) CHECK(took(from + i * FZ_TURN, from + (i + 1) * FZ_TURN, (char)('A' + i)) == PROMPT + FZ_TURN - 1);
    done(e);
}

/* Two new ones of the same client are always there: one that had its turn has the next after theirs while its cells are
 * in the cache, else when 16 more went before it. */
static void long_beside_new_ones(int32_t n_prompt, int32_t most) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 1024;
    o.n_slots = 1;
    fz_engine *e = opened(&o);
    uint64_t slow = 0, quick[60] = {0};
    stub_allow(0);
    CHECK(ask(e, &slow, 'L', n_prompt, 300, 1, 1) == FZ_OK);
    decode(e, 1);
    int32_t from = stub_decodes();
    for (int32_t n = 0; n < 60 && !ended(e, slow); n++) {
        CHECK(ask(e, &quick[n], 'Q', n_prompt / 2, 60, 1, 1) == FZ_OK);
        if (n > 0) decodes_to_end(e, quick[n - 1], 3000);
    }
    int32_t longest = longest_gap(from, 'L');
    CHECK(took(from, stub_decodes(), 'L') >= 2 * FZ_TURN && longest <= most * 60 && longest > (most - 1) * 60);
    done(e);
}

static void test_long_ones_beside_new_ones_of_the_same_client(void) {
    long_beside_new_ones(100, 2);
    long_beside_new_ones(700, 2 + FZ_PASSES);
}

/* Slots are shared among users first, then among the clients of each. */
static void test_slots_are_shared(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t a[8] = {0}, b[4] = {0}, c[2] = {0};
    ask_for_all(e, a, 8);
    decode(e, 5);
    for (int32_t i = 0; i < 4; i++) CHECK(ask(e, &b[i], 'B', PROMPT, EVERYTHING, 1, 2) == FZ_OK);
    for (int32_t i = 0; i < 2; i++) CHECK(ask(e, &c[i], 'C', PROMPT, EVERYTHING, 2, 3) == FZ_OK);
    decode(e, 10); /* before anybody's credit is used up */
    int32_t at = stub_decodes() - 1;
    CHECK(stub_took(at, 'C') == 2 && stub_took(at, 'B') == 1 && stub_took(at, 'H') == 1);
    done(e);
}

/* The queue is full: the last request of the client that has most under way makes room for another's, and is told. */
static void test_the_queue_is_shared(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_slots = 2;
    o.n_queue = 4;
    fz_engine *e = opened(&o);
    uint64_t all[7] = {0}, other[5] = {0};
    ask_for_all(e, all, 6);
    decode(e, 3);
    CHECK(ask(e, &all[6], 'H', PROMPT, 5, 1, 1) == FZ_E_OVERLOADED);
    for (int32_t i = 0; i < 3; i++) {
        CHECK(ask(e, &other[i], 'O', PROMPT, EVERYTHING, 1 + (uint32_t)i % 2, 2 + (uint32_t)i % 2) == FZ_OK);
        char text[64];
        fz_progress p = look(e, all[5 - i], text, sizeof text);
        CHECK(p.reason == FZ_FAILED && p.code == FZ_E_OVERLOADED && p.completion_tokens == 0);
        CHECK(strstr(p.message, "its place in the queue went to a client that has fewer requests under way"));
        CHECK(!ended(e, all[4 - i]));
    }
    CHECK(ask(e, &other[3], 'O', PROMPT, 5, 1, 2) == FZ_E_OVERLOADED); /* as many as the first has by now */
    CHECK(!ended(e, all[2]) && !ended(e, all[0]) && !ended(e, other[0]));
    CHECK(ask(e, &all[5], 'H', PROMPT, 5, 1, 1) == FZ_E_OVERLOADED);
    done(e);
}

/* Each token of a draft that is said is one of the turn and of the credit. */
static void test_drafts_are_charged(void) {
    stub_reset();
    stub_script(4, "on and on and on and on and on and on and on and on and on and on and on and on and on and on and on and on and on");
    stub_decode_us(300);
    fz_options o = PLAIN;
    o.n_slots = 1;
    o.drafts = FZ_DRAFTS_ALWAYS;
    fz_engine *e = opened(&o);
    uint64_t drafted = 0, other = 0;
    int32_t prompt[] = {'D', 'o', STUB_SCRIPT + 4};
    char err[200] = "";
    fz_params p = {.max_tokens = 110, .top_p = 1, .repeat_penalty = 1, .timeout_ms = 3600000, .user = 1, .client = 1};
    stub_allow(0);
    CHECK(fz_session_open(e, &drafted) == FZ_OK && fz_submit(e, drafted, prompt, 3, &p, err, sizeof err) == FZ_OK);
    CHECK(ask(e, &other, 'O', PROMPT, 100, 1, 1) == FZ_OK);
    int32_t from = stub_decodes();
    decode(e, 25);
    fz_stats st;
    fz_stats_get(e, &st);
    CHECK(st.draft_accepted > 0 && took(from, stub_decodes(), 'O') == 0);
    pthread_mutex_lock(&e->lock);
    int32_t used = FZ_CREDIT * 8 - e->clients[0].credit;
    pthread_mutex_unlock(&e->lock);
    CHECK(used == 8 * tokens_of(e, drafted) + 2);
    while (took(from, stub_decodes(), 'O') == 0 && !ended(e, drafted)) decode(e, 1);
    int32_t said = tokens_of(e, drafted);
    CHECK(said >= FZ_TURN && said < FZ_TURN + FZ_DRAFTS + 1);
    done(e);
}

/* Interrupted within its prompt: what was never computed is not computed again, and does not make its turn longer. */
static void test_the_turn_of_a_prompt_that_was_interrupted(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_slots = 2;
    fz_engine *e = opened(&o);
    uint64_t large[2] = {0}, quick = 0;
    stub_allow(0);
    for (int32_t i = 0; i < 2; i++) CHECK(ask(e, &large[i], 'L', 3000, 200, 1, 1) == FZ_OK);
    decode(e, 2);
    CHECK(ask(e, &quick, 'Q', PROMPT, 5, 2, 2) == FZ_OK);
    CHECK(decodes_to_end(e, quick, 20) == 1 + 5);
    decode(e, 2);
    pthread_mutex_lock(&e->lock);
    CHECK(e->n_running == 2);
    for (int32_t i = 0; i < e->n_running; i++) CHECK(e->running[i]->turn_most == FZ_TURN);
    pthread_mutex_unlock(&e->lock);
    done(e);
}

/* A decode that an abort ends uses up credit as another. */
static void test_aborted_decodes_are_charged(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t aborted[12] = {0}, all = 0, other = 0;
    stub_allow(0);
    for (int32_t i = 0; i < 12; i++) {
        CHECK(ask(e, &aborted[i], 'A', FZ_BATCH, 5, 1, 1) == FZ_OK);
        decode(e, 0);
        CHECK(fz_abort(e, aborted[i]) == FZ_OK);
        while (!ended(e, aborted[i])) pause_a_little();
    }
    CHECK(ask(e, &other, 'O', PROMPT, 100, 1, 2) == FZ_OK);
    decode(e, 2);
    CHECK(ask(e, &all, 'A', PROMPT, 100, 1, 1) == FZ_OK);
    decode(e, 1);
    int32_t from = stub_decodes();
    decode(e, 50);
    CHECK(took(from, from + 50, 'O') == 50 && took(from, from + 50, 'A') == 0);
    done(e);
}

/* Takes the mask that is wanted, and lets everything. */
static void let_all(fz_engine *e) {
    fz_mask_job job;
    bool is_wanted = fz_mask_next(e, 1000, &job) == FZ_OK;
    CHECK(is_wanted);
    if (!is_wanted) return;
    CHECK(fz_mask_ff(e, job.session, job.serial, NULL, 0, 0) == FZ_OK);
    memset(job.bits, 0xFF, sizeof *job.bits * (size_t)job.n_words);
    CHECK(fz_mask_ready(e, job.session, job.serial, FZ_OK) == FZ_OK);
}

/* A turn is over while nobody took the mask: it can be taken while others run, and the generation goes on with it. */
static void test_a_mask_that_is_late_at_the_end_of_a_turn(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_slots = 2;
    fz_engine *e = opened(&o);
    uint64_t late = 0, others[2] = {0};
    int32_t first = 'L';
    char err[200] = "";
    fz_params p = {.max_tokens = 2, .top_p = 1, .repeat_penalty = 1, .timeout_ms = 3600000, .constrained = 1, .user = 1, .client = 1};
    stub_allow(0);
    CHECK(fz_session_open(e, &late) == FZ_OK && fz_submit(e, late, &first, 1, &p, err, sizeof err) == FZ_OK);
    CHECK(ask(e, &others[0], 'A', PROMPT, EVERYTHING, 1, 1) == FZ_OK);
    let_all(e);
    decode(e, 5); /* its first token; nobody takes the mask of the second */
    CHECK(tokens_of(e, late) == 1);
    CHECK(ask(e, &others[1], 'B', PROMPT, EVERYTHING, 1, 1) == FZ_OK);
    decode(e, 2 * FZ_TURN);
    CHECK(took(0, stub_decodes(), 'B') > 0);
    let_all(e);
    CHECK(fz_abort(e, others[0]) == FZ_OK && decodes_to_end(e, late, 500) < 500 && tokens_of(e, late) == 2);
    done(e);
}

/* --- many of many clients, in a cache that holds few of them: each gets its own text, or is told that it does not */

typedef struct job {
    uint64_t s;
    int32_t tok[MOST], n, max_tokens, len;
    char text[600];
    bool under_way;
} job;

static void begin(fz_engine *e, job *j, uint32_t *seed) {
    static const int32_t lengths[] = {5, 40, 150, 400}, answers[] = {1, 5, 70, 200};
    char err[200];
    fz_params p = {.top_p = 1, .repeat_penalty = 1, .timeout_ms = 3600000};
    *seed = *seed * 1664525u + 1013904223u;
    p.user = *seed >> 30;
    p.client = *seed >> 28;
    j->max_tokens = p.max_tokens = answers[*seed >> 20 & 3];
    j->n = lengths[*seed >> 24 & 3];
    j->len = 0;
    for (int32_t i = 0; i < j->n; i++) j->tok[i] = 'A' + (int32_t)((*seed ^ (uint32_t)i * 2654435761u) >> 16) % 26;
    j->s = 0;
    if (fz_session_open(e, &j->s) != FZ_OK) return;
    j->under_way = fz_submit(e, j->s, j->tok, j->n, &p, err, sizeof err) == FZ_OK;
    if (!j->under_way) fz_session_close(e, j->s);
}

/* Whether it ended; then its text was right. */
static bool follow(fz_engine *e, job *j, int32_t *pushed_out) {
    fz_progress p;
    int32_t n = fz_take(e, j->s, j->text + j->len, (int32_t)sizeof j->text - j->len, &p);
    j->len += n;
    if (p.reason == FZ_RUNNING || p.more) return false;
    if (p.reason == FZ_FAILED) {
        CHECK(p.code == FZ_E_OVERLOADED && j->len == 0);
        ++*pushed_out;
    } else {
        CHECK(p.reason == FZ_LENGTH && j->len == j->max_tokens);
        bool same = true;
        for (int32_t i = 0; i < j->len; i++) {
            j->tok[j->n + i] = stub_next(j->tok, j->n + i);
            same = same && j->text[i] == (char)j->tok[j->n + i];
        }
        CHECK(same);
    }
    fz_session_close(e, j->s);
    j->under_way = false;
    return true;
}

static void test_many_of_many_clients(void) {
    enum { JOBS = 24 };
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 1024;
    o.n_queue = 12;
    o.out_limit = 100;
    fz_engine *e = opened(&o);
    static job jobs[JOBS];
    int32_t to_do = getenv("QUICK") ? 60 : 400, pushed_out = 0;
    uint32_t seed = 7;
    for (int32_t left = to_do; left > 0;) {
        for (int32_t i = 0; i < JOBS; i++) {
            if (!jobs[i].under_way) begin(e, &jobs[i], &seed);
            else if (follow(e, &jobs[i], &pushed_out)) left--;
        }
        pause_a_little();
    }
    fz_stats st;
    fz_stats_get(e, &st);
    CHECK(st.evictions > 0 && pushed_out > 0 && st.turn_tokens == 64 && st.credit_tokens == 512 && st.most_passes == 16);
    memset(jobs, 0, sizeof jobs);
    done(e);
}

int main(void) {
    RUN(test_a_short_one_beside_one_that_asks_for_everything);
    RUN(test_a_plain_stream_beside_one_that_asks_for_everything);
    RUN(test_who_used_up_its_credit_is_not_starved);
    RUN(test_two_that_ask_for_everything);
    RUN(test_turns);
    RUN(test_long_ones_beside_new_ones_of_the_same_client);
    RUN(test_slots_are_shared);
    RUN(test_the_queue_is_shared);
    RUN(test_drafts_are_charged);
    RUN(test_the_turn_of_a_prompt_that_was_interrupted);
    RUN(test_aborted_decodes_are_charged);
    RUN(test_a_mask_that_is_late_at_the_end_of_a_turn);
    RUN(test_many_of_many_clients);
    run_passes_tests();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
