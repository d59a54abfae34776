/* libFuzzer: bytes become a program of calls, over two engines' worth of limits, against the stub. */
#include <stdlib.h>
#include <string.h>

#include "../gemma_internal.h"
#include "stub_llama.h"

static uint8_t next(const uint8_t **p, const uint8_t *end) { return *p < end ? *(*p)++ : 0; }

static void answer_mask(fz_engine *e, uint8_t how) {
    fz_mask_job job;
    int32_t forced[2] = {'x', how % 3 ? 'y' : 100000};
    if (fz_mask_next(e, 0, &job) != FZ_OK) return;
    fz_mask_ff(e, job.session, job.serial + (how % 7 == 0), forced, how % 3, how % 5 == 0);
    memset(job.bits, how % 4 ? 0xFF : 0, sizeof *job.bits * (size_t)job.n_words);
    fz_mask_ready(e, job.session, job.serial, how % 11 == 0 ? FZ_E_MASK : FZ_OK);
}

static void submit(fz_engine *e, uint64_t session, const uint8_t **p, const uint8_t *end) {
    int32_t tokens[64], n = next(p, end) % 64;
    for (int32_t i = 0; i < n; i++) tokens[i] = next(p, end) * 2 - 4;
    char err[32], stop[8];
    for (int i = 0; i < 8; i++) stop[i] = (char)next(p, end);
    fz_params q = {.max_tokens = next(p, end) % 40, .temperature = (float)(next(p, end) % 4) / 2,
                   .top_k = next(p, end) % 50 - 1, .top_p = (float)(next(p, end) % 12) / 10,
                   .min_p = (float)(next(p, end) % 12) / 10, .repeat_penalty = (float)(next(p, end) % 4) / 2,
                   .timeout_ms = next(p, end) * 4, .constrained = next(p, end) % 2, .n_stop = next(p, end) % 3};
    for (int i = 0; i < 2; i++) q.stop[i] = stop + i * 3, q.stop_len[i] = next(p, end) % 4;
    fz_submit(e, session, tokens, n, &q, err, sizeof err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *p = data, *end = data + size;
    stub_reset();
    fz_options o = {.n_ctx = 64 + next(&p, end), .n_threads = 1, .n_slots = 1 + next(&p, end) % 4, .n_sessions = 6,
                    .n_queue = next(&p, end) % 3, .drafts = next(&p, end) % 3, .out_limit = 1 + next(&p, end)};
    fz_engine *e = NULL;
    char err[100], buf[32];
    if (fz_open("stub", &o, &e, err, sizeof err) != FZ_OK) return 0;
    uint64_t ids[8] = {0}, got[4];
    fz_progress progress;
    while (p < end) {
        uint8_t what = next(&p, end), which = next(&p, end) % 8;
        switch (what % 9) {
            case 0: fz_session_open(e, &ids[which]); break;
            case 1: fz_session_close(e, ids[which]); break;
            case 2:
            case 3: submit(e, ids[which], &p, end); break;
            case 4: fz_abort(e, ids[which]); break;
            case 5: fz_take(e, ids[which], buf, what % 32, &progress); break;
            case 6: fz_ready(e, got, 4); break;
            case 7: answer_mask(e, what); break;
            default: stub_fail_next(what % 5 == 0 ? (int32_t)(what % 4) - 2 : 0);
        }
    }
    fz_close(e);
    if (stub_misuse()) abort();
    return 0;
}
