/* Who was passed often enough has its turn, against the stub: for want of room, and behind its own client's. */
#include "fair_test.h"

/* More generations of one client than there are lanes: those that lost theirs are passed by their own client's, which puts
 * them before these, and not before a newcomer. And they go on: each has its turns. */
static void test_passes_by_its_own_client_count_within_it(void) {
    stub_reset();
    fz_engine *e = opened(&PLAIN);
    uint64_t all[20] = {0}, quick[8] = {0};
    int32_t before[20];
    ask_for_all(e, all, 20);
    decode(e, 250);
    for (uint32_t i = 0; i < 8; i++) { /* a user's own and another's */
        decode(e, 250);
        CHECK(ask(e, &quick[i], 'Q', PROMPT, 5, 1 + i % 2, 2 + i) == FZ_OK);
        CHECK(decodes_to_end(e, quick[i], 300) == 1 + 5);
    }
    for (int32_t i = 0; i < 20; i++) before[i] = tokens_of(e, all[i]);
    decode(e, 4000);
    for (int32_t i = 0; i < 20; i++) CHECK(tokens_of(e, all[i]) >= before[i] + FZ_TURN);
    done(e);
}

/* Three long generations of a client run, a fourth found no room and was passed by 15 short ones of the client, and more:
 * it has its turn before the client's own, and a short one of another user has the free slot at once. */
static void test_a_free_slot_beside_one_that_was_passed_by_its_own_client(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 1024;
    fz_engine *e = opened(&o);
    uint64_t large[4] = {0}, quick[FZ_PASSES + 2] = {0}, other = 0;
    stub_allow(0);
    for (int32_t i = 0; i < 4; i++) CHECK(ask(e, &large[i], 'L', 210, 800, 1, 1) == FZ_OK);
    fz_stats st = {0};
    for (int32_t i = 0; i < 100 && st.queued == 0; i++) decode(e, 1), fz_stats_get(e, &st); /* the cache is full */
    CHECK(st.queued == 1 && st.running == 3);
    for (int32_t i = 0; i < FZ_PASSES + 2; i++) {
        CHECK(ask(e, &quick[i], 'S', PROMPT, 1, 1, 1) == FZ_OK);
        if (i < FZ_PASSES - 1) CHECK(decodes_to_end(e, quick[i], 10) <= 3);
    }
    fz_stats_get(e, &st);
    CHECK(st.running < 4);
    CHECK(ask(e, &other, 'Q', PROMPT, 5, 2, 2) == FZ_OK);
    CHECK(decodes_to_end(e, other, 400) <= 1 + 5);
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

/* One that was passed often enough waits until the turns of two others are over, who have the room that it needs: short ones
 * that leave it that room have the free slot meanwhile, and it goes before all whose room it needs. */
static void test_who_takes_no_room_from_one_that_goes_first(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 1024;
    fz_engine *e = opened(&o);
    uint64_t runs[2] = {0}, large = 0, quick[FZ_PASSES + 4] = {0}, late = 0;
    stub_allow(0);
    int32_t from = stub_decodes(); /* those before tried the model */
    for (uint32_t i = 0; i < 2; i++) CHECK(ask(e, &runs[i], 'R', 250, 200, 1 + i, 1 + i) == FZ_OK);
    decode(e, 2);
    CHECK(ask(e, &large, 'L', 540, 100, 3, 3) == FZ_OK);
    for (int32_t i = 0; i < FZ_PASSES + 4; i++) {
        CHECK(ask(e, &quick[i], 'Q', PROMPT, 1, 4, 4) == FZ_OK);
        CHECK(decodes_to_end(e, quick[i], 10) <= 3);
    }
    CHECK(took(from, stub_decodes(), 'L') == 0);
    CHECK(ask(e, &late, 'T', 500, 1, 5, 5) == FZ_OK);
    for (int32_t i = 0; i < FZ_TURN && took(from, stub_decodes(), 'L') == 0; i++) decode(e, 1);
    CHECK(took(from, stub_decodes(), 'L') > 0 && took(from, stub_decodes(), 'T') == 0);
    CHECK(decodes_to_end(e, large, 400) < 400 && decodes_to_end(e, late, 400) < 400);
    done(e);
}

/* It had the turn that it was passed for: from then on a short one takes its room again. */
static void test_a_turn_that_nobody_interrupts_ends(void) {
    stub_reset();
    fz_options o = PLAIN;
    o.n_ctx = 1900;
    fz_engine *e = opened(&o);
    uint64_t large = 0, quick[FZ_PASSES + 1] = {0};
    stub_allow(0);
    CHECK(ask(e, &large, 'L', 1500, 350, 1, 1) == FZ_OK);
    decode(e, 5);
    for (int32_t i = 0; i < FZ_PASSES; i++) {
        CHECK(ask(e, &quick[i], 'Q', 450, 5, 1, 2) == FZ_OK);
        CHECK(decodes_to_end(e, quick[i], 300) <= 8);
    }
    decode(e, 300); /* 64, and one for each four that it computes again */
    CHECK(!ended(e, large));
    CHECK(ask(e, &quick[FZ_PASSES], 'Q', 450, 5, 1, 2) == FZ_OK);
    CHECK(decodes_to_end(e, quick[FZ_PASSES], 300) <= 8 && !ended(e, large));
    CHECK(decodes_to_end(e, large, 400) < 400 && tokens_of(e, large) == 350);
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

void run_passes_tests(void) {
    RUN(test_passes_by_its_own_client_count_within_it);
    RUN(test_a_free_slot_beside_one_that_was_passed_by_its_own_client);
    RUN(test_a_short_one_that_finds_no_room);
    RUN(test_a_large_one_is_passed_so_often_and_no_more);
    RUN(test_who_takes_no_room_from_one_that_goes_first);
    RUN(test_a_turn_that_nobody_interrupts_ends);
    RUN(test_half_of_a_conversation_is_kept);
}
