/* Who goes first, against the stub: decodes are allowed one by one and counted, so that no clock says what is fair. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../gemma_internal.h"
#include "stub_llama.h"

static int passed, failed;
#define CHECK(what)                                                                            \
    do {                                                                                       \
        if (what) passed++;                                                                    \
        else failed++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);              \
    } while (0)
#define RUN(test)                                                                              \
    do {                                                                                       \
        if (getenv("ONLY") && !strstr(#test, getenv("ONLY"))) break;                           \
        if (getenv("VERBOSE")) fprintf(stderr, "%s\n", #test);                                 \
        test();                                                                                \
    } while (0)

enum { PROMPT = 12, EVERYTHING = 100000, MOST = 4096 };
static const fz_options PLAIN = {
    .n_ctx = 8192, .n_threads = 1, .n_slots = 4, .n_sessions = 64, .n_queue = 32, .drafts = FZ_DRAFTS_OFF, .out_limit = 1 << 20,
};

static fz_engine *opened(const fz_options *o) {
    char err[200] = "";
    fz_engine *e = NULL;
    if (fz_open("stub.gguf", o, &e, err, sizeof err) != FZ_OK) {
        fprintf(stderr, "fz_open: %s\n", err);
        exit(1);
    }
    return e;
}

/* A prompt of `n` characters whose first one is told apart by stub_took. */
static int32_t ask(fz_engine *e, uint64_t *s, char first, int32_t n, int32_t max_tokens, uint32_t user, uint32_t client) {
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

static void pause_a_little(void) { nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL); }

/* So many decodes; afterwards one waits, with what was to be decoded when it was composed, or nothing is left to do. */
static void decode(fz_engine *e, int32_t n) {
    stub_allow(n);
    fz_stats st;
    do {
        pause_a_little();
        fz_stats_get(e, &st);
    } while (!stub_waits() && st.running + st.queued > 0);
}

static fz_progress look(fz_engine *e, uint64_t s, char *text, int32_t cap) {
    fz_progress p;
    int32_t n = fz_take(e, s, text, cap - 1, &p);
    text[n > 0 ? n : 0] = 0;
    return p;
}

static bool ended(fz_engine *e, uint64_t s) {
    char text[64];
    fz_progress p = look(e, s, text, sizeof text);
    return p.reason != FZ_RUNNING;
}

static int32_t tokens_of(fz_engine *e, uint64_t s) {
    char text[20000];
    return look(e, s, text, sizeof text).completion_tokens;
}

static int32_t sum_of(fz_engine *e, const uint64_t *s, int32_t n) {
    int32_t sum = 0;
    for (int32_t i = 0; i < n; i++) sum += tokens_of(e, s[i]);
    return sum;
}

/* Decodes one by one until it ended; how many, at most `most`. */
static int32_t decodes_to_end(fz_engine *e, uint64_t s, int32_t most) {
    int32_t n = 0;
    while (!ended(e, s) && n < most) decode(e, 1), n++;
    return n;
}

/* All slots and the whole queue, for everything: client 1 of user 1, sequences that begin with H. */
static void ask_for_all(fz_engine *e, uint64_t *s, int32_t n) {
    stub_allow(0);
    for (int32_t i = 0; i < n; i++) CHECK(ask(e, &s[i], 'H', PROMPT, EVERYTHING, 1, 1) == FZ_OK);
}

static int32_t took(int32_t from, int32_t to, char first) {
    int32_t n = 0;
    for (int32_t i = from; i < to; i++) n += stub_took(i, first);
    return n;
}

/* The most decodes in a row without such a sequence, which then had one. */
static int32_t longest_gap(int32_t from, char first) {
    int32_t gap = 0, longest = 0;
    for (int32_t i = from; i < stub_decodes(); i++) {
        gap++;
        if (!stub_took(i, first)) continue;
        if (gap - 1 > longest) longest = gap - 1;
        gap = 0;
    }
    return longest;
}

static void done(fz_engine *e) {
    CHECK(stub_misuse() == 0);
    stub_allow(-1);
    fz_close(e);
}

/* One client has all slots and the whole queue; another asks for five tokens: a process of the same user, then one of
 * another user. It is through after the decode that is under way and its own five, and shares none of them. */
static void test_a_short_one_beside_one_that_asks_for_everything(void) {
    for (uint32_t user = 1; user <= 2; user++) {
        stub_reset();
        fz_engine *e = opened(&PLAIN);
        uint64_t all[36] = {0}, quick = 0;
        ask_for_all(e, all, 36);
        decode(e, 300);
        CHECK(ask(e, &quick, 'Q', PROMPT, 5, user, 2) == FZ_OK);
        int32_t from = stub_decodes() + 1;
        CHECK(decodes_to_end(e, quick, 600) == 1 + 5);
        CHECK(took(from, from + 5, 'Q') == PROMPT + 4 && took(from, from + 5, 'H') == 0);
        CHECK(took(from - 20, from, 'H') >= 20 * 4);
        decode(e, 20);
        CHECK(took(from + 6, from + 20, 'H') >= 14 * 4); /* and the other goes on at once */
        done(e);
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
static void test_who_used_up_its_credit_is_not_starved(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t all[8] = {0}, plain[8] = {0};
    ask_for_all(e, all, 8);
    decode(e, 1000);
    int32_t from = stub_decodes();
    for (uint32_t i = 0; i < 8; i++) { /* the next one comes before the last one is through */
        CHECK(ask(e, &plain[i], 'P', PROMPT, 250, 1, 10 + i) == FZ_OK);
        if (i > 0) decodes_to_end(e, plain[i - 1], 5000);
        decode(e, i > 0 ? 50 : 100);
    }
    int32_t longest = longest_gap(from, 'H');
    CHECK(longest == FZ_CREDIT);
    int32_t late = stub_decodes() - 500;
    CHECK(took(late, late + 500, 'H') >= 300); /* nearly as much as the others, each of whom is new */
    done(e);
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

/* Slots are shared among users first, then among the clients of each. */
/* Two new ones of the same client are always there: one that had its turn has the next after theirs while its cells are
 * in the cache, else when 16 went before it. */
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
    long_beside_new_ones(700, FZ_PASSES);
}

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

/* A long conversation fills the cache; short ones do not wait for its room, and take it up to 16 times: then it has its
 * turn. Nobody's text differs. */
static void test_a_short_one_that_finds_no_room(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 1024;
    fz_engine *e = opened(&o);
    uint64_t large = 0, quick[40] = {0};
    stub_allow(0);
    CHECK(ask(e, &large, 'L', 900, 100, 1, 1) == FZ_OK);
    decode(e, 5);
    int32_t n = 0;
    while (!ended(e, large) && n < 40) {
        CHECK(ask(e, &quick[n], 'Q', 120, 5, 1, 2) == FZ_OK);
        int32_t most = n < FZ_PASSES ? 8 : 200, needed = decodes_to_end(e, quick[n], 300);
        CHECK(needed <= most);
        n++;
    }
    CHECK(n > FZ_PASSES && n <= 2 * FZ_PASSES);
    char text[200];
    CHECK(look(e, large, text, sizeof text).completion_tokens == 100);
    done(e);
}

/* One that needs nearly all cells waits beside a stream of short ones that leave too few: 16 start before it at most. */
static void test_a_large_one_is_passed_so_often_and_no_more(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 1024;
    o.n_slots = 2;
    fz_engine *e = opened(&o);
    uint64_t large = 0, quick[64] = {0};
    stub_allow(0);
    CHECK(ask(e, &quick[0], 'Q', 200, 20, 1, 2) == FZ_OK);
    decode(e, 1);
    CHECK(ask(e, &large, 'L', 900, 70, 1, 1) == FZ_OK);
    int32_t n = 1;
    while (n < 64 && took(0, stub_decodes(), 'L') == 0) {
        CHECK(ask(e, &quick[n], 'Q', 200, 20, 1, 2 + (uint32_t)n) == FZ_OK); /* each of a client of its own */
        decodes_to_end(e, quick[n - 1], 200);
        n++;
    }
    CHECK(n > 2 && n <= FZ_PASSES + 3);
    CHECK(decodes_to_end(e, large, 400) < 400 && tokens_of(e, large) == 70);
    done(e);
}

/* Who makes room loses the later half of a long conversation first. */
static void test_half_of_a_conversation_is_kept(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 2000;
    fz_engine *e = opened(&o);
    uint64_t kept = 0, other = 0;
    CHECK(ask(e, &kept, 'K', 1200, 1, 1, 1) == FZ_OK);
    while (!ended(e, kept)) pause_a_little();
    CHECK(ask(e, &other, 'O', 1000, 1, 1, 1) == FZ_OK);
    while (!ended(e, other)) pause_a_little();
    CHECK(ask(e, &kept, 'K', 10, 1, 1, 1) == FZ_OK);
    while (!ended(e, kept)) pause_a_little();
    char text[64];
    CHECK(look(e, kept, text, sizeof text).cached_tokens == 576);
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
    RUN(test_a_short_one_that_finds_no_room);
    RUN(test_a_large_one_is_passed_so_often_and_no_more);
    RUN(test_half_of_a_conversation_is_kept);
    RUN(test_a_mask_that_is_late_at_the_end_of_a_turn);
    RUN(test_many_of_many_clients);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
