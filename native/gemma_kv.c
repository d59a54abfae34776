/*
 * Which conversation is where in llama.cpp's KV cache. A lane is a sequence of the cache and the tokens it holds. A
 * session that starts takes the lane with the longest common beginning: its own, or a copy of another's (in a unified
 * cache a copy shares the cells). What closed sessions leave stays as kept prefixes, the latest of them; as every
 * decode looks at all cells up to the last one in use, they are parked outside of the cache as soon as nothing runs.
 *
 * The cache of the sliding-window layers has the full size (swa_full), so every beginning of a lane is whole: what a
 * window no longer sees is masked, not gone, and a reused beginning computes what a fresh one would.
 */
#include <stdlib.h>
#include <string.h>

#include "gemma_internal.h"

static int32_t common(const int32_t *a, int32_t na, const int32_t *b, int32_t nb) {
    int32_t n = na < nb ? na : nb, i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

bool fz_lane_add(fz_engine *e, fz_lane *lane, const int32_t *tok, int32_t n) {
    (void)e;
    if (lane->n + n > lane->cap) {
        int32_t cap = lane->cap ? lane->cap : 256;
        while (cap < lane->n + n) cap *= 2;
        int32_t *grown = realloc(lane->tok, sizeof *grown * (size_t)cap);
        if (!grown) return false;
        lane->tok = grown;
        lane->cap = cap;
    }
    if (n > 0) memcpy(lane->tok + lane->n, tok, sizeof *tok * (size_t)n);
    lane->n += n;
    return true;
}

void fz_lane_trim(fz_engine *e, int32_t index, int32_t n) {
    fz_lane *lane = &e->lanes[index];
    if (!llama_memory_seq_rm(e->memory, index, n, -1)) { /* a memory that cannot be cut: start anew */
        llama_memory_seq_rm(e->memory, index, -1, -1);
        n = 0;
    }
    if (lane->n > n) lane->n = n;
    if (lane->n < lane->prompt) lane->prompt = lane->cut = 0;
}

static bool is_running(const fz_engine *e, const fz_lane *lane) {
    (void)e;
    return lane->owner && lane->owner->state == FZ_S_RUNNING;
}

static bool is_waiting(const fz_lane *lane) { return lane->owner && lane->owner->state == FZ_S_QUEUED; }

/* The lane that was used longest ago and is not running, but not `but`; those of idle sessions before those that are
 * to go on. -1: none. */
static int32_t oldest(const fz_engine *e, int32_t but, bool with_tokens) {
    int32_t found = -1;
    for (int32_t i = 0; i < e->n_lanes; i++) {
        const fz_lane *lane = &e->lanes[i];
        if (i == but || is_running(e, lane) || (with_tokens && lane->n == 0)) continue;
        bool waits = is_waiting(lane), sooner = found >= 0 && lane->used_us < e->lanes[found].used_us;
        if (found < 0 || (waits == is_waiting(&e->lanes[found]) ? sooner : !waits)) found = i;
    }
    return found;
}

void fz_lane_drop(fz_engine *e, int32_t index) {
    fz_lane *lane = &e->lanes[index];
    llama_memory_seq_rm(e->memory, index, -1, -1);
    if (lane->owner) {
        lane->owner->lane = -1;
        e->stats.evictions++;
    }
    lane->owner = NULL;
    lane->n = lane->prompt = lane->cut = 0;
    lane->used_us = 0;
}

/* What is cut off is computed again; of what is short nothing is worth keeping. */
bool fz_lane_evict(fz_engine *e) {
    int32_t index = oldest(e, -1, true);
    if (index < 0) return false;
    int32_t half = e->lanes[index].n / 2 / FZ_TILE * FZ_TILE;
    if (half < FZ_KEPT) {
        fz_lane_drop(e, index);
    } else {
        fz_lane_trim(e, index, half);
        e->stats.evictions += e->lanes[index].owner != NULL;
    }
    return true;
}

/* --- beginnings outside of the cache ---------------------------------------------------------------------- */

void fz_parked_free(fz_engine *e, int32_t index) {
    free(e->parked[index].tok);
    free(e->parked[index].state);
    e->parked[index] = e->parked[--e->n_parked];
}

static int32_t oldest_parked(const fz_engine *e) {
    int32_t found = -1;
    for (int32_t i = 0; i < e->n_parked; i++)
        if (found < 0 || e->parked[i].used_us < e->parked[found].used_us) found = i;
    return found;
}

/* What closed sessions leave is kept short, in the cache and outside: an eighth of the context, the latest first; the
 * latest alone may be a quarter long. */
static void keep_few(fz_engine *e) {
    int32_t room = e->n_ctx / 8 > FZ_KEPT ? e->n_ctx / 8 : FZ_KEPT;
    for (;;) {
        int64_t all = 0;
        int32_t last = -1, n = e->n_parked, parked = oldest_parked(e);
        for (int32_t i = 0; i < e->n_parked; i++) all += e->parked[i].n;
        for (int32_t i = 0; i < e->n_lanes; i++) {
            const fz_lane *lane = &e->lanes[i];
            if (lane->owner || lane->n == 0) continue;
            all += lane->n;
            n++;
            if (last < 0 || lane->used_us < e->lanes[last].used_us) last = i;
        }
        if (all <= room) return;
        if (n == 1) {
            if (last >= 0 && all > 2 * room) fz_lane_trim(e, last, 2 * room);
            return;
        }
        if (parked >= 0 && (last < 0 || e->parked[parked].used_us <= e->lanes[last].used_us)) fz_parked_free(e, parked);
        else fz_lane_drop(e, last);
    }
}

static int32_t unowned(const fz_engine *e) {
    for (int32_t i = 0; i < e->n_lanes; i++)
        if (!e->lanes[i].owner && e->lanes[i].n > 0) return i;
    return -1;
}

/* A copy of the lane's keys and values; its state is NULL when there is no memory for one. Unlocked: a lane without an
 * owner is the loop's alone. */
static fz_parked copy_of(fz_engine *e, int32_t index) {
    const fz_lane *lane = &e->lanes[index];
    fz_parked p = {.n = lane->n, .prompt = lane->prompt, .cut = lane->cut, .used_us = lane->used_us};
    p.size = llama_state_seq_get_size(e->ctx, index);
    p.tok = malloc(sizeof *p.tok * (size_t)p.n);
    p.state = p.size ? malloc(p.size) : NULL;
    if (p.tok && p.state && llama_state_seq_get_data(e->ctx, p.state, p.size, index) == p.size) {
        memcpy(p.tok, lane->tok, sizeof *p.tok * (size_t)p.n);
        return p;
    }
    free(p.tok);
    free(p.state);
    p.tok = NULL;
    p.state = NULL;
    return p;
}

bool fz_lane_park(fz_engine *e) {
    int32_t index = unowned(e);
    if (index < 0) return false;
    for (int32_t i = e->n_parked - 1; i >= 0; i--) /* its own earlier beginnings say nothing more */
        if (common(e->parked[i].tok, e->parked[i].n, e->lanes[index].tok, e->lanes[index].n) == e->parked[i].n)
            fz_parked_free(e, i);
    keep_few(e);
    if (e->lanes[index].n == 0) return true;
    pthread_mutex_unlock(&e->lock);
    fz_parked p = copy_of(e, index);
    pthread_mutex_lock(&e->lock);
    fz_lane_drop(e, index);
    if (!p.state) return true;
    if (e->n_parked == FZ_MAX_PARKED) fz_parked_free(e, oldest_parked(e));
    e->parked[e->n_parked++] = p;
    return true;
}

/* The first `n` tokens of a parked beginning go into the lane, which is empty; it stays so when there is no room. */
static void restore(fz_engine *e, int32_t index, int32_t from, int32_t n) {
    fz_parked *p = &e->parked[from];
    int64_t held = p->n;
    for (int32_t i = 0; i < e->n_lanes; i++) held += e->lanes[i].n;
    if (held > e->n_ctx) return;
    if (llama_state_seq_set_data(e->ctx, p->state, p->size, index) != p->size ||
        !fz_lane_add(e, &e->lanes[index], p->tok, p->n)) {
        fz_lane_trim(e, index, 0);
        return;
    }
    p->used_us = fz_now_us();
    fz_lane_trim(e, index, n);
    if (n == p->n) fz_parked_free(e, from);
}

/* --- a session's place ------------------------------------------------------------------------------------ */

int32_t fz_reusable(int32_t n_prompt) { return (n_prompt - 1) / FZ_ROWS * FZ_ROWS; }

/* How much of a prompt of `n` tokens is reused when the first `there` of them are there; one token at least is decoded,
 * for its logits. In fours, because llama.cpp has another kernel, which rounds otherwise, for rows that are left over.
 * When all of it is there, its end is computed by the attention that computed it before: so the same seed gives the
 * same text. */
static int32_t reused(int32_t n, int32_t there, int32_t prompt, int32_t cut) {
    int32_t most = fz_reusable(n);
    bool was_short = n < FZ_TILE || (n == prompt && n - cut < FZ_TILE);
    if (there == n && !was_short) most = (n - FZ_TILE) / FZ_ROWS * FZ_ROWS;
    return there < most ? there / FZ_ROWS * FZ_ROWS : most;
}

/* The longest common beginning: a lane's, its own if others are no longer, or (found >= n_lanes) a parked one's. */
static int32_t best(const fz_engine *e, const fz_session *s, int32_t *shared) {
    int32_t found = -1, most = 0;
    *shared = 0;
    for (int32_t i = 0; i < e->n_lanes; i++) {
        const fz_lane *lane = &e->lanes[i];
        int32_t n = common(lane->tok, lane->n, s->tok, s->n_tok);
        if (n < most || (n == most && (n == 0 || i != s->lane))) continue;
        most = n;
        found = i;
        *shared = reused(s->n_tok, n, lane->prompt, lane->cut);
    }
    for (int32_t i = 0; i < e->n_parked; i++) {
        const fz_parked *p = &e->parked[i];
        int32_t n = common(p->tok, p->n, s->tok, s->n_tok);
        if (n <= most) continue;
        most = n;
        found = e->n_lanes + i;
        *shared = reused(s->n_tok, n, p->prompt, p->cut);
    }
    return *shared > 0 || found == s->lane ? found : -1;
}

/* A lane for the session, not `from` if another can be had; what it held is dropped unless it is `from`. -1: none. */
static int32_t free_lane(fz_engine *e, int32_t from) {
    int32_t to = oldest(e, from, false);
    if (to < 0) to = oldest(e, -1, false); /* only the source itself is left: take it over */
    if (to >= 0 && to != from) fz_lane_drop(e, to);
    return to;
}

bool fz_lane_attach(fz_engine *e, fz_session *s) {
    int32_t shared, from = best(e, s, &shared), to = s->lane < 0 ? free_lane(e, from) : s->lane;
    if (to < 0) return false;
    fz_lane *lane = &e->lanes[to];
    fz_lane_trim(e, to, from == to ? shared : 0);
    if (from >= e->n_lanes) {
        restore(e, to, from - e->n_lanes, shared);
    } else if (from >= 0 && from != to) {
        llama_memory_seq_cp(e->memory, from, to, 0, shared);
        e->lanes[from].used_us = fz_now_us();
        if (!fz_lane_add(e, lane, e->lanes[from].tok, shared)) {
            fz_lane_trim(e, to, 0);
            return false;
        }
    }
    if (lane->owner && lane->owner != s) lane->owner->lane = -1;
    lane->owner = s;
    lane->used_us = fz_now_us();
    s->lane = to;
    s->n_cached = lane->n;
    keep_few(e);
    return true;
}
