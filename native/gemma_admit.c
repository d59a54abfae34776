/*
 * Who runs: those who wait start in their order (gemma_fair.c) while there are slots and room for what they hold, or while
 * others yield them; one that cannot go on because nobody takes its text gives its slot to others; and when the cache is
 * full, the one that holds most gives way. So nobody waits for what another only asked for.
 */
#include <string.h>

#include "gemma_internal.h"

/* Free cells that a generation wants to find before it starts, so that it does not give way at once. */
enum { HEADROOM = 64 };
enum { TRIES = FZ_MAX_SLOTS + 16 }; /* how many of those that wait are looked at at once */

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
    for (int32_t i = 0; i < e->n_queued; i++) n += !fz_is_paused(e, e->queue[i]);
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
    if (s->gave_way) more = e->n_ctx / 8;
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

/* A running session waits again: behind the others when its turn is over, else where it was. What it holds stays in the
 * cache until somebody needs the room. */
static void suspend(fz_engine *e, fz_session *s) {
    int32_t at = 0;
    while (e->running[at] != s) at++;
    memmove(e->running + at, e->running + at + 1, sizeof *e->running * (size_t)(--e->n_running - at));
    e->queue[e->n_queued++] = s;
    s->state = FZ_S_QUEUED;
    s->row = -1;
    s->in_batch = 0;
    s->tried = true; /* others first */
    s->blocked = !fz_turn_is_over(s) && !fz_is_paused(e, s);
    s->beside = false;
    s->due = FZ_DUE_NOT;
    if (!s->blocked) s->ticket = ++e->tickets;
    fz_lane *lane = &e->lanes[s->lane];
    if (lane->n > s->reached) s->reached = lane->n;
    lane->used_us = fz_now_us();
}

bool fz_give_way(fz_engine *e) {
    fz_session *most = NULL;
    for (int32_t i = 0; i < e->n_running; i++) {
        fz_session *s = e->running[i];
        if (fz_is_paused(e, s)) {
            most = s;
            break;
        }
        if (!most || most->due > s->due || (most->due == s->due && s->n_tok > most->n_tok)) most = s;
    }
    if (e->n_running < 2) return false;
    bool own = true;
    for (int32_t i = 0; i < e->n_running; i++) own = own && e->running[i]->client == most->client;
    suspend(e, most);
    if (own) most->passed_own++;
    else most->passed++;
    most->gave_way = true;
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
    s->gave_way = false;
    e->running[e->n_running++] = s;
    if ((first || s->lane < 0) && !fz_lane_attach(e, s)) {
        fz_finish(e, s, FZ_FAILED, FZ_E_MEMORY, "no memory for the conversation");
        return;
    }
    if (!first) s->n_cached = cached;
    else if (s->params.constrained) fz_want_mask(e, s, -1);
    int32_t lost = s->reached - e->lanes[s->lane].n;
    fz_begin_turn(s, lost > 0 ? lost : 0);
}

static bool can_start(const fz_engine *e, const fz_session *s) { return !s->mask_stale && !fz_is_paused(e, s); }

/* The running one that lets `waits` go first, whose turn began first among those that had theirs; else the one that
 * started last, which has least to lose. */
static fz_session *who_yields(const fz_engine *e, const fz_session *waits) {
    fz_session *found = NULL;
    for (int32_t i = 0; i < e->n_running; i++) {
        fz_session *s = e->running[i];
        if (s->yielding || !fz_yields(e, s, waits)) continue;
        if (!found || !fz_turn_is_over(found)) found = s;
    }
    return found;
}

/* The one that holds most, where what waits needs less than half of that: a short one does not wait for its room. */
static fz_session *much_larger(const fz_engine *e, const fz_session *waits) {
    fz_session *found = NULL;
    for (int32_t i = 0; i < e->n_running; i++)
        if (!found || e->running[i]->n_tok > found->n_tok) found = e->running[i];
    return found && !fz_is_whole(found, waits) && need_of(e, waits) <= found->n_tok / 2 ? found : NULL;
}

/* Gives it a slot and the cells that it needs, if others yield what is lacking. *room: false when cells are. */
static bool make_place(fz_engine *e, const fz_session *s, bool *room) {
    int64_t lacking = (int64_t)need_of(e, s) - e->n_ctx;
    int32_t left = e->n_running;
    for (int32_t i = 0; i < e->n_running; i++) {
        lacking += e->running[i]->n_tok;
        e->running[i]->yielding = false;
    }
    while (left == e->opt.n_slots || (lacking > 0 && left > 0)) {
        fz_session *from = who_yields(e, s);
        if (!from && lacking > 0 && left == e->n_running) from = much_larger(e, s);
        *room = lacking <= 0;
        if (!from) return false;
        from->yielding = true;
        lacking -= from->n_tok;
        left--;
    }
    for (int32_t i = e->n_running - 1; i >= 0; i--)
        if (e->running[i]->yielding) suspend(e, e->running[i]);
    return true;
}

static void leave_queue(fz_engine *e, const fz_session *s) {
    int32_t at = 0;
    while (e->queue[at] != s) at++;
    memmove(e->queue + at, e->queue + at + 1, sizeof *e->queue * (size_t)(--e->n_queued - at));
}

/* Of those that wait and were not tried, the one that goes first. */
static fz_session *first_of_queue(const fz_engine *e) {
    fz_session *found = NULL;
    for (int32_t i = 0; i < e->n_queued; i++) {
        fz_session *s = e->queue[i];
        if (!s->tried && can_start(e, s) && (!found || fz_goes_first(e, s, found))) found = s;
    }
    return found;
}

/* Whether it would take the room of one that waits and goes before it: what that one needs is left to it, beside those
 * that were let past it before. The others make room when their turns are over. */
static bool is_held_back(const fz_engine *e, const fz_session *s) {
    int64_t need = need_of(e, s);
    for (int32_t i = 0; i < e->n_running; i++)
        if (e->running[i]->beside && !fz_turn_is_over(e->running[i])) need += need_of(e, e->running[i]);
    for (int32_t i = 0; i < e->n_queued; i++) {
        const fz_session *first = e->queue[i];
        if (first->tried && first != s && can_start(e, first) && fz_is_due(first, s) && need_of(e, first) + need > e->n_ctx) return true;
    }
    return false;
}

static bool goes_beside(const fz_engine *e, const fz_session *s) {
    bool beside = false;
    for (int32_t i = 0; i < e->n_queued; i++) beside = beside || (can_start(e, e->queue[i]) && fz_is_due(e->queue[i], s));
    return beside;
}

/* It passes those that find no room or were interrupted for it, and those of its client that wait for longer because
 * they must be computed again. */
static bool is_passed(const fz_engine *e, const fz_session *s, const fz_session *starts) {
    bool later = s->begun && s->client == starts->client && s->ticket < starts->ticket;
    return s->blocked || (later && can_start(e, s));
}

/* Of each client the one counts that goes first: so many passes give a client one turn, not each of its generations. */
static void note_passed(fz_engine *e, const fz_session *starts) {
    for (int32_t i = 0; i < e->n_queued; i++) {
        fz_session *s = e->queue[i];
        bool first = is_passed(e, s, starts);
        for (int32_t k = 0; k < e->n_queued && first; k++) {
            const fz_session *other = e->queue[k];
            first = other == s || other->client != s->client || !is_passed(e, other, starts) || fz_goes_first(e, s, other);
        }
        if (!first) continue;
        if (s->client == starts->client) s->passed_own++;
        else s->passed++;
    }
}

bool fz_admit(fz_engine *e) {
    bool wanted = false;
    for (int32_t i = 0; i < e->n_queued; i++) {
        e->queue[i]->tried = e->queue[i]->blocked = false;
        wanted = wanted || can_start(e, e->queue[i]);
    }
    for (int32_t i = e->n_running - 1; i >= 0 && wanted; i--)
        if (fz_is_paused(e, e->running[i])) suspend(e, e->running[i]);
    fz_session *s;
    for (int32_t tries = 0; tries < TRIES && (s = first_of_queue(e)); tries++) {
        bool room = false;
        s->tried = true;
        if (!is_held_back(e, s) && make_place(e, s, &room)) {
            leave_queue(e, s);
            note_passed(e, s);
            s->beside = goes_beside(e, s);
            start(e, s);
        } else {
            s->blocked = !room;
        }
    }
    return wanted;
}
