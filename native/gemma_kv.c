/*
 * Which conversation is where in llama.cpp's KV cache. A lane is a sequence of the cache and the tokens it holds. A
 * session that starts takes the lane with the longest common beginning: its own, or a copy of another's (in a unified
 * cache a copy shares the cells). Lanes of closed sessions stay as kept prefixes, the latest of them.
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
}

static bool is_running(const fz_engine *e, const fz_lane *lane) {
    (void)e;
    return lane->owner && lane->owner->state == FZ_S_RUNNING;
}

/* The lane that was used longest ago and is not running, but not `but`; -1: none. */
static int32_t oldest(const fz_engine *e, int32_t but, bool with_tokens) {
    int32_t found = -1;
    for (int32_t i = 0; i < e->n_lanes; i++) {
        const fz_lane *lane = &e->lanes[i];
        if (i == but || is_running(e, lane) || (with_tokens && lane->n == 0)) continue;
        if (found < 0 || lane->used_us < e->lanes[found].used_us) found = i;
    }
    return found;
}

static void drop(fz_engine *e, int32_t index) {
    fz_lane *lane = &e->lanes[index];
    llama_memory_seq_rm(e->memory, index, -1, -1);
    if (lane->owner) {
        lane->owner->lane = -1;
        e->stats.evictions++;
    }
    lane->owner = NULL;
    lane->n = 0;
    lane->used_us = 0;
}

bool fz_lane_evict(fz_engine *e) {
    int32_t index = oldest(e, -1, true);
    if (index < 0) return false;
    drop(e, index);
    return true;
}

static int32_t best_lane(const fz_engine *e, const fz_session *s, int32_t *shared) {
    int32_t found = -1;
    *shared = 0;
    for (int32_t i = 0; i < e->n_lanes; i++) {
        int32_t n = common(e->lanes[i].tok, e->lanes[i].n, s->tok, s->n_tok);
        if (n > *shared || (n == *shared && n > 0 && i == s->lane)) {
            *shared = n;
            found = i;
        }
    }
    return found;
}

/* Every decode looks at all cells up to the last one in use, so what closed sessions leave is kept short: an eighth of
 * the context, the latest first. */
static void keep_few(fz_engine *e) {
    int32_t room = e->n_ctx / 8 > FZ_KEPT ? e->n_ctx / 8 : FZ_KEPT;
    for (;;) {
        int64_t all = 0;
        int32_t last = -1, n = 0;
        for (int32_t i = 0; i < e->n_lanes; i++) {
            const fz_lane *lane = &e->lanes[i];
            if (lane->owner || lane->n == 0) continue;
            all += lane->n;
            n++;
            if (last < 0 || lane->used_us < e->lanes[last].used_us) last = i;
        }
        if (all <= room) return;
        if (n > 1) drop(e, last);
        else fz_lane_trim(e, last, room);
    }
}

bool fz_lane_attach(fz_engine *e, fz_session *s) {
    int32_t shared, from = best_lane(e, s, &shared), to = s->lane;
    if (shared >= s->n_tok) shared = s->n_tok - 1; /* one token at least is decoded, for its logits */
    if (shared < FZ_MIN_SHARED && from != to) shared = 0;
    if (to < 0) {
        to = oldest(e, shared > 0 ? from : -1, false);
        if (to < 0) to = oldest(e, -1, false); /* only the source itself is left: take it over */
        if (to < 0) return false;
        if (to != from) drop(e, to);
    }
    fz_lane *lane = &e->lanes[to];
    if (from == to) {
        fz_lane_trim(e, to, shared);
    } else {
        fz_lane_trim(e, to, 0);
        if (shared > 0) {
            llama_memory_seq_cp(e->memory, from, to, 0, shared);
            e->lanes[from].used_us = fz_now_us();
            if (!fz_lane_add(e, lane, e->lanes[from].tok, shared)) {
                fz_lane_trim(e, to, 0);
                return false;
            }
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
