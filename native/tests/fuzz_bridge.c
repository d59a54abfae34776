/*
 * libFuzzer: bytes become a program of calls, over two engines' worth of limits, against the stub. Most calls are ones that
 * an engine takes, of texts that repeat themselves, and a program may wait for what it began: so that decodes, drafts and
 * masks are reached, and not refusals alone. What was reached is told at the end; without it the run has failed (`test`).
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../gemma_internal.h"
#include "stub_llama.h"

/* Beginnings of generations that go round in circles, with detours. */
static const char *const SCRIPTS[] = {
    "on and on and on and on and out and on and on and off", "aaaaaaaabaaaabaaaab", "one two one two three one two one four",
    "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9x\xC3\xA9\xC3\xA9\xF0\x9F\x94\xA5\xF0\x9F\x94\xA5\xF0\x9F\x94\xA5",
};
enum { N_SCRIPTS = sizeof SCRIPTS / sizeof *SCRIPTS, WAIT_MS = 1 };

static struct { int64_t inputs, decodes, ended_early, drafted, accepted, generated; } reached;

static uint8_t next(const uint8_t **p, const uint8_t *end) { return *p < end ? *(*p)++ : 0; }

static void tell(void) {
    fprintf(stderr, "reached: %lld inputs, %lld decodes, %lld ended early, %lld drafted, %lld accepted, %lld generated\n",
            (long long)reached.inputs, (long long)reached.decodes, (long long)reached.ended_early, (long long)reached.drafted,
            (long long)reached.accepted, (long long)reached.generated);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    return atexit(tell);
}

static bool is_busy(fz_engine *e) {
    fz_stats st;
    fz_stats_get(e, &st);
    return st.running + st.queued > 0;
}

static void answer_mask(fz_engine *e, uint8_t how) {
    fz_mask_job job;
    int32_t forced[2] = {'x', how % 13 ? 'y' : 100000};
    if (fz_mask_next(e, is_busy(e) ? WAIT_MS : 0, &job) != FZ_OK) return;
    fz_mask_ff(e, job.session, job.serial + (how % 17 == 0), forced, how % 8 < 6 ? 0 : how % 3, how % 31 == 0);
    memset(job.bits, how % 4 == 1 ? 0xFF : 0, sizeof *job.bits * (size_t)job.n_words);
    for (int c = 32; c < 128 && how % 19; c++) job.bits[c / 32] |= 1u << c % 32; /* few, or all */
    fz_mask_ready(e, job.session, job.serial, how % 23 == 0 ? FZ_E_MASK : FZ_OK);
}

/* A prompt that ends with the beginning of a script, or any bytes; parameters of which an eighth are any, too. */
static void submit(fz_engine *e, uint64_t session, const uint8_t **p, const uint8_t *end) {
    int32_t tokens[64], n = next(p, end) % 16;
    uint8_t how = next(p, end);
    bool wild = how % 8 == 7;
    for (int32_t i = 0; i < n; i++) tokens[i] = wild ? next(p, end) * 2 - 4 : "on and one two a"[next(p, end) % 16];
    tokens[n++] = STUB_SCRIPT + how % N_SCRIPTS;
    char err[32], stop[8];
    for (int i = 0; i < 8; i++) stop[i] = wild ? (char)next(p, end) : "d and fe"[i];
    fz_params q = {.max_tokens = 1 + next(p, end) % 64, .temperature = how & 8 ? 0.0f : 0.7f, .top_k = how & 16 ? 5 : 0, .top_p = 1,
                   .repeat_penalty = how & 32 ? 1.1f : 1, .timeout_ms = 10000, .constrained = how >> 6 & 1, .n_stop = how >> 7};
    if (wild) {
        q.max_tokens -= 2;
        q.top_k = next(p, end) % 50 - 1;
        q.top_p = (float)(next(p, end) % 12) / 10;
        q.min_p = (float)(next(p, end) % 12) / 10;
        q.repeat_penalty = (float)(next(p, end) % 4) / 2;
        q.timeout_ms = next(p, end) % 64;
        q.n_stop = next(p, end) % 3;
    }
    for (int i = 0; i < 2; i++) q.stop[i] = stop + i * 3, q.stop_len[i] = 1 + (how + i) % 4;
    q.client = how % 4;
    q.user = q.client / 2;
    fz_submit(e, session, tokens, n, &q, err, sizeof err);
}

/* Until something can be taken, or a while; masks that are wanted meanwhile are answered. */
static void wait_for_text(fz_engine *e, uint8_t how) {
    struct pollfd fd = {.fd = fz_eventfd(e), .events = POLLIN};
    uint64_t got[4];
    for (int turn = 0; turn < 1 + how % 32 && is_busy(e); turn++) {
        if (how & 128) answer_mask(e, (uint8_t)(how + turn * 7));
        if (poll(&fd, 1, how & 128 ? 0 : WAIT_MS) > 0 && fz_ready(e, got, 4) > 0 && how % 3) return;
    }
}

static void one_call(fz_engine *e, uint64_t *ids, const uint8_t **p, const uint8_t *end) {
    uint8_t what = next(p, end), which = next(p, end) % 4;
    uint64_t got[4];
    fz_progress progress;
    char buf[32];
    if (!ids[which]) fz_session_open(e, &ids[which]);
    switch (what % 16) {
        case 0: fz_session_open(e, &ids[which]); break;
        case 1: fz_session_close(e, ids[which]); ids[which] = what & 128 ? ids[which] : 0; break;
        case 2: fz_abort(e, ids[which]); break;
        case 3: fz_ready(e, got, 4); break;
        case 4: stub_fail_next(what % 5 == 0 ? (int32_t)(what / 16 % 4) - 2 : 0); break;
        case 5: stub_room(what & 64 ? 1 + what / 16 % 4 : 0); break; /* no room for a draft */
        case 6:
        case 7: answer_mask(e, (uint8_t)(what + which)); break;
        case 8:
        case 9: fz_take(e, ids[which], buf, 16 + what % 16, &progress); break;
        case 10:
        case 11: wait_for_text(e, next(p, end)); break;
        default: submit(e, ids[which], p, end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *p = data, *end = data + size;
    uint8_t how = next(&p, end);
    stub_reset();
    for (int32_t i = 0; i < N_SCRIPTS; i++) stub_script(i, SCRIPTS[i]);
    fz_options o = {.n_ctx = 64 + next(&p, end), .n_threads = 1, .n_slots = 1 + how % 4, .n_sessions = 6, .n_queue = how / 4 % 4,
                    .full_logits = how / 16 % 4 == 0, .drafts = how / 64 % 3, .out_limit = 1 + next(&p, end)};
    fz_engine *e = NULL;
    char err[100];
    if (fz_open("stub", &o, &e, err, sizeof err) != FZ_OK) return 0;
    uint64_t ids[4] = {0};
    while (p < end) one_call(e, ids, &p, end);
    fz_stats st;
    fz_stats_get(e, &st);
    reached.inputs++;
    reached.decodes += st.decodes;
    reached.ended_early += st.short_decodes;
    reached.drafted += st.drafted;
    reached.accepted += st.draft_accepted;
    reached.generated += st.tokens_generated;
    fz_close(e);
    if (stub_misuse()) abort();
    return 0;
}
