/*
 * Who runs: those who wait start in their order while there are slots and room for what they hold; one that cannot go on
 * because nobody takes its text gives its slot to others; and when the cache is full, the one that holds most gives way
 * and is computed again. So nobody waits for what another only asked for.
 */
#include <string.h>

#include "gemma_internal.h"

/* Free cells that a generation wants to find before it starts, so that it does not give way at once. */
enum { HEADROOM = 64 };

int64_t fz_retire(fz_engine *e) {
    int64_t now = fz_now_us(), next = INT64_MAX;
    for (int pass = 0; pass < 2; pass++) {
        fz_session **list = pass ? e->queue : e->running;
        for (int32_t i = (pass ? e->n_queued : e->n_running) - 1; i >= 0; i--) {
            fz_session *s = list[i];
            int64_t until = s->late_until_us && s->late_until_us < s->deadline_us ? s->late_until_us : s->deadline_us;
            if (e->closed || s->closing || s->abort)
                fz_finish(e, s, FZ_ABORTED, 0, NULL);
            else if (now >= s->deadline_us)
                fz_finish(e, s, FZ_TIMEOUT, 0, NULL);
            else if (now >= until && s->mask != FZ_M_READY)
                fz_finish(e, s, FZ_FAILED, FZ_E_MASK, "the grammar could not be followed");
            else if (until < next)
                next = until;
        }
    }
    return next;
}

bool fz_is_paused(const fz_engine *e, const fz_session *s) { return (int64_t)s->out.len > e->opt.out_limit; }

int32_t fz_waiting(const fz_engine *e) {
    int32_t n = 0;
    for (int32_t i = 0; i < e->n_queued; i++) n += !e->queue[i]->begun;
    return n;
}

int32_t fz_busy(const fz_engine *e) {
    int32_t n = fz_waiting(e);
    for (int32_t i = 0; i < e->n_running; i++) n += !fz_is_paused(e, e->running[i]);
    return n;
}

/* What it holds, and some cells to go on: more of them when it gave way before, for being computed again is dear. */
static int32_t need_of(const fz_engine *e, const fz_session *s) {
    int32_t more = s->params.max_tokens < HEADROOM ? s->params.max_tokens : HEADROOM;
    if (s->begun && s->lane < 0) more = e->n_ctx / 8;
    return s->n_tok > e->n_ctx - more ? e->n_ctx : s->n_tok + more;
}

void fz_want_mask(fz_engine *e, fz_session *s, int32_t token) {
    s->mask = FZ_M_WANTED;
    s->mask_token = token;
    s->mask_done = false;
    s->mask_code = FZ_OK;
    s->n_ff = 0;
    s->serial++;
    s->wanted_us = fz_now_us();
    pthread_cond_signal(&e->mask_wake);
}

/* A running session waits again, before all others; what it holds stays in the cache until somebody needs the room. */
static void suspend(fz_engine *e, fz_session *s) {
    int32_t at = 0;
    while (e->running[at] != s) at++;
    memmove(e->running + at, e->running + at + 1, sizeof *e->running * (size_t)(--e->n_running - at));
    memmove(e->queue + 1, e->queue, sizeof *e->queue * (size_t)e->n_queued++);
    e->queue[0] = s;
    s->state = FZ_S_QUEUED;
    s->row = -1;
    s->in_batch = 0;
    e->lanes[s->lane].used_us = fz_now_us();
}

bool fz_give_way(fz_engine *e) {
    fz_session *most = NULL;
    for (int32_t i = 0; i < e->n_running; i++) {
        fz_session *s = e->running[i];
        if (fz_is_paused(e, s)) {
            most = s;
            break;
        }
        if (!most || s->n_tok > most->n_tok) most = s;
    }
    if (e->n_running < 2) return false;
    suspend(e, most);
    fz_lane_drop(e, most->lane);
    return true;
}

/* Locked. It has a lane and goes on where it was, or is computed again. */
static void start(fz_engine *e, fz_session *s) {
    bool first = !s->begun;
    int32_t cached = s->n_cached;
    s->state = FZ_S_RUNNING;
    s->stepped_us = fz_now_us();
    if (first) s->start_us = s->stepped_us;
    s->begun = true;
    e->running[e->n_running++] = s;
    if (!first && s->lane >= 0) return;
    if (!fz_lane_attach(e, s)) {
        fz_finish(e, s, FZ_FAILED, FZ_E_MEMORY, "no memory for the conversation");
        return;
    }
    if (!first) s->n_cached = cached;
    else if (s->params.constrained) fz_want_mask(e, s, -1);
}

static bool can_start(const fz_engine *e, const fz_session *s) { return !s->mask_stale && !fz_is_paused(e, s); }

bool fz_admit(fz_engine *e) {
    int64_t room = e->n_ctx;
    bool wanted = false;
    for (int32_t i = 0; i < e->n_queued; i++) wanted = wanted || can_start(e, e->queue[i]);
    for (int32_t i = e->n_running - 1; i >= 0 && wanted; i--)
        if (fz_is_paused(e, e->running[i])) suspend(e, e->running[i]);
    for (int32_t i = 0; i < e->n_running; i++) room -= e->running[i]->n_tok;
    for (int32_t i = 0; i < e->n_queued && e->n_running < e->opt.n_slots;) {
        fz_session *s = e->queue[i];
        if (!can_start(e, s) || (e->n_running > 0 && need_of(e, s) > room)) {
            i++; /* it waits for its reader, its mask or room; others need not */
            continue;
        }
        room -= s->n_tok;
        memmove(e->queue + i, e->queue + i + 1, sizeof *e->queue * (size_t)(--e->n_queued - i));
        start(e, s);
    }
    return wanted;
}
