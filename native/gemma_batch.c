/*
 * What one llama_decode holds: a token of every running stream, and beside them parts of what is longer: prompts, what a
 * grammar forces, what is computed again.
 */
#include <stdlib.h>

#include "gemma_internal.h"

/* Every so many rounds all streams are tried at once; more tokens than FEW at once are no stream's; and who waited this
 * long for its part of a batch comes first. */
enum { TRY_EVERY = 16, FEW = 16, PATIENCE_US = 1000000 };

bool fz_awaits_force(const fz_session *s) {
    return s->params.constrained && (s->mask == FZ_M_WANTED || s->mask == FZ_M_TAKEN);
}

/* How many tokens of the session may be decoded now. */
int32_t fz_pending(const fz_engine *e, const fz_session *s) {
    if (fz_is_paused(e, s)) return 0; /* its reader is slow: only it waits */
    int32_t at = e->lanes[s->lane].n;
    if (!fz_awaits_force(s)) return s->n_tok - at;
    return (s->prompt_done ? s->n_tok - 1 : fz_reusable(s->n_prompt)) - at; /* the rest goes with what will be forced */
}

void fz_batch_put(fz_engine *e, int32_t token, int32_t pos, int32_t seq, bool output) {
    struct llama_batch *b = &e->batch;
    int32_t at = b->n_tokens++;
    b->token[at] = token;
    b->pos[at] = pos;
    b->n_seq_id[at] = 1;
    b->seq_id[at][0] = seq;
    b->logits[at] = output;
}

static void add_tokens(fz_engine *e, fz_session *s, int32_t n) {
    struct llama_batch *b = &e->batch;
    int32_t from = e->lanes[s->lane].n;
    for (int32_t i = 0; i < n; i++) fz_batch_put(e, s->tok[from + i], from + i, s->lane, false);
    s->in_batch = n;
    s->row = -1;
    s->stepped_us = fz_now_us();
    if (from + n == s->n_tok && !fz_awaits_force(s) && !s->late_until_us) {
        s->row = b->n_tokens - 1;
        s->output = e->n_outputs++;
        e->rows.wanted = s->params.constrained && (e->rows.wanted || s->output == 0) && e->rows.state == FZ_ROWS_ON;
        b->logits[s->row] = true;
        if (!s->prompt_done) {
            e->lanes[s->lane].prompt = s->n_prompt;
            e->lanes[s->lane].cut = from;
        }
    }
}

static int by_stepped(const void *left, const void *right) {
    const fz_session *a = *(fz_session *const *)left, *b = *(fz_session *const *)right;
    return a->stepped_us != b->stepped_us ? (a->stepped_us > b->stepped_us ? 1 : -1) : 0;
}

/* How many tokens of prompts may go beside running streams: a chunk. Several short prompts go together, up to three
 * chunks: a stream then waits once instead of three times, and who began together stays together, which is what makes
 * later batches full. */
static int32_t beside_streams(const fz_engine *e, fz_session *const *bulk, int32_t n_bulk) {
    int32_t waiting = 0, chunk = e->stats.chunk;
    for (int32_t i = 0; i < n_bulk && n_bulk > 1; i++)
        if (!bulk[i]->prompt_done) waiting += fz_pending(e, bulk[i]);
    return waiting > chunk && waiting <= 3 * chunk ? waiting : chunk;
}

/* How much of a prompt's `n` tokens goes into a batch that has `used` and takes `room` more. Rows that are no four cost
 * as much as a four; and what is left for the prompt's end is enough for the attention of long batches, so that it is
 * computed alike wherever the prompt was cut. */
static int32_t part_of(int32_t n, int32_t room, int32_t used) {
    int32_t part = n - room < FZ_TILE && room > 2 * FZ_TILE ? n - FZ_TILE : room;
    return part > 2 * FZ_ROWS ? part - (used + part) % FZ_ROWS : part;
}

/* What is longer than a stream's step, in the order in which it goes: the shortest first, so that nobody waits behind
 * what another only began; but first of all who waited too long. */
static void sort_bulk(fz_engine *e, fz_session **bulk, int32_t n) {
    int64_t now = fz_now_us();
    for (int32_t i = 1; i < n; i++) {
        fz_session *s = bulk[i];
        int32_t size = now - s->stepped_us > PATIENCE_US ? 0 : fz_pending(e, s), at = i;
        for (; at > 0; at--) {
            const fz_session *before = bulk[at - 1];
            if ((now - before->stepped_us > PATIENCE_US ? 0 : fz_pending(e, before)) <= size) break;
            bulk[at] = bulk[at - 1];
        }
        bulk[at] = s;
    }
}

/* Sorts the running sessions that have something to decode; returns how many of both kinds there are. */
static int32_t sort_out(fz_engine *e, fz_session **ready, int32_t *n_ready, fz_session **bulk, int32_t *n_bulk) {
    bool credit = false;
    *n_ready = *n_bulk = 0;
    for (int32_t i = 0; i < e->n_running; i++)
        credit = credit || (fz_has_credit(e->running[i]) && fz_pending(e, e->running[i]) > 0);
    for (int32_t i = 0; i < e->n_running; i++) {
        fz_session *s = e->running[i];
        s->in_batch = 0;
        s->row = -1;
        int32_t n = fz_pending(e, s);
        if (n <= 0 || (credit && !fz_has_credit(s))) continue;
        if (s->prompt_done && n <= FEW) ready[(*n_ready)++] = s;
        else bulk[(*n_bulk)++] = s;
    }
    qsort(ready, (size_t)*n_ready, sizeof *ready, by_stepped);
    sort_bulk(e, bulk, *n_bulk);
    return *n_ready + *n_bulk;
}

/* What decodes of these streams cost: those that all have a grammar mostly end early. */
static const fz_costs *costs_of(const fz_engine *e, fz_session *const *ready, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        if (!ready[i]->params.constrained) return &e->stats.costs;
    return e->rows.state == FZ_ROWS_ON ? &e->stats.short_costs : &e->stats.costs;
}

/* Running streams first, as many as is cheapest; beside what is longer, all of them and a chunk of it. */
int32_t fz_compose(fz_engine *e) {
    fz_session *ready[FZ_MAX_SLOTS], *bulk[FZ_MAX_SLOTS];
    int32_t n_ready, n_bulk, used = 0;
    e->batch.n_tokens = 0;
    e->n_outputs = 0;
    e->rows.wanted = false;
    if (sort_out(e, ready, &n_ready, bulk, &n_bulk) == 0) return 0;
    int32_t take = n_ready;
    const fz_costs *costs = costs_of(e, ready, n_ready);
    if (!n_bulk && n_ready > 1 && ++e->rounds % TRY_EVERY != 0) take = costs->plan[n_ready - 1]; /* else: try all */
    for (int32_t i = 0; i < take; i++) {
        int32_t n = fz_pending(e, ready[i]), room = FZ_BATCH - e->batch.n_tokens;
        if (room > 0) add_tokens(e, ready[i], n < room ? n : room), used++;
    }
    int32_t budget = n_ready ? beside_streams(e, bulk, n_bulk) : FZ_BATCH;
    for (int32_t i = 0; i < n_bulk; i++) {
        int32_t n = fz_pending(e, bulk[i]), room = FZ_BATCH - e->batch.n_tokens;
        if (room > budget) room = budget;
        if (room <= 0) break;
        if (n > room) n = part_of(n, room, e->batch.n_tokens);
        add_tokens(e, bulk[i], n);
        budget -= n;
        used++;
    }
    e->streams = !n_bulk && e->batch.n_tokens == used ? used : 0;
    fz_draft_watch(e);
    if (e->streams == 1 && ready[0]->row >= 0) fz_draft_add(e, ready[0]);
    e->alone = used == 1 ? (n_bulk ? bulk[0] : ready[0]) : NULL;
    atomic_store(&e->decode_deadline_us, e->alone ? e->alone->deadline_us : INT64_MAX);
    return used;
}
