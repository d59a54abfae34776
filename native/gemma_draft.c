/*
 * Drafts. Where the end of a conversation was said before in it, what followed then is tried in the same decode: a name
 * that is copied from a prompt costs one decode instead of one for each token. Each row is sampled in its turn, with the
 * session's own generator, and the first token that is another ends the draft: what is said is what would have been said.
 *
 * That holds only where a row of a batch has the bits that it has alone. llama.cpp takes other kernels for wide batches,
 * so the widest that gives the same is looked for with the model that is loaded. Its attention over more than SPLIT cells
 * is divided among threads for one row only and rounds otherwise: there are no drafts then, unless they are asked for.
 */
#include <stdlib.h>
#include <string.h>

#include "gemma_internal.h"

/* The shortest and the longest end that is looked for; up to so many cells attention is not divided. */
enum { SHORTEST = 2, LONGEST = 8, SPLIT = 256, STEPS = 4 };

int32_t fz_draft_find(const int32_t *tok, int32_t n, int32_t most, int32_t *draft, int32_t *match) {
    int32_t from = -1;
    *match = 0;
    for (int32_t i = n - 1; i >= SHORTEST && *match < LONGEST; i--) { /* the latest of the longest */
        if (tok[i - 1] != tok[n - 1] || tok[i - 2] != tok[n - 2]) continue;
        int32_t len = SHORTEST;
        while (len < LONGEST && len < i && tok[i - 1 - len] == tok[n - 1 - len]) len++;
        if (len > *match) *match = len, from = i;
    }
    if (from < 0) return 0;
    int32_t found = n - from < most ? n - from : most;
    memcpy(draft, tok + from, sizeof *draft * (size_t)found);
    return found;
}

/* --- whether it pays -------------------------------------------------------------------------------------- */

/* How often the first token of a draft was right, of short and of long matches: at first a guess, then as it was lately. */
void fz_draft_forget(fz_session *s) {
    s->guess = -1;
    s->hits[0] = 0.3f;
    s->hits[1] = 0.7f;
    s->was_short = false;
}

void fz_draft_seen(fz_session *s, int32_t token) {
    if (s->guess < 0) return;
    float *hits = &s->hits[s->guess_long];
    *hits += ((float)(token == s->guess) - *hits) / 8;
    s->guess = -1;
}

/* What a decode of one stream and `k` drafted tokens takes: as measured, else as one of so many streams. */
static int64_t cost_of(const fz_engine *e, bool is_short, int32_t k) {
    const fz_costs *costs = is_short ? &e->stats.short_costs : &e->stats.costs;
    int64_t known = e->drafts.us[is_short][k - 1];
    return known > 0 ? known : k < costs->n && costs->us[k] > 0 ? costs->us[k] : costs->us[0] * (3 + k) / 3;
}

void fz_draft_learn(fz_engine *e, int64_t took_us) {
    int64_t *known = &e->drafts.us[e->rows.taken][e->drafts.n - 1];
    *known = *known <= 0 || took_us < *known ? took_us : *known + (took_us - *known) / 32;
}

int32_t fz_draft_length(float hit, const int64_t *us, int32_t n) {
    if (us[0] <= 0) return n;
    float right = 1, said = 1, most = 1.05f / (float)us[0]; /* a twentieth is for the rest of the work */
    int32_t best = 0;
    for (int32_t k = 1; k <= n; k++) {
        said += right *= hit;
        if (said / (float)us[k] > most) most = said / (float)us[k], best = k;
    }
    return best;
}

/* How many of `found` tokens are tried. */
static int32_t best_length(const fz_engine *e, const fz_session *s, int32_t found) {
    int64_t us[FZ_DRAFTS + 1] = {(s->was_short ? &e->stats.short_costs : &e->stats.costs)->us[0]};
    for (int32_t k = 1; k <= found; k++) us[k] = cost_of(e, s->was_short, k);
    return fz_draft_length(s->hits[s->guess_long], us, found);
}

/* --- in a batch ------------------------------------------------------------------------------------------- */

void fz_draft_watch(fz_engine *e) {
    int32_t held = 0, batch = e->batch.n_tokens;
    for (int32_t i = 0; i < e->n_lanes; i++) held += e->lanes[i].n;
    if (held == 0 || held + batch > e->drafts.cells) e->drafts.cells = held + batch;
}

/* How many rows more the batch may have, for the same bits, within what the session may still say. */
static int32_t room_for(fz_engine *e, const fz_session *s) {
    fz_drafts *d = &e->drafts;
    int32_t room = d->most + 1 - e->batch.n_tokens, left = s->params.max_tokens - s->n_gen - 1;
    if (room > left) room = left;
    if (room > e->n_ctx - s->n_tok) room = e->n_ctx - s->n_tok;
    if (e->opt.drafts != FZ_DRAFTS_ALWAYS && e->stats.n_threads > 1 && room > SPLIT - d->cells) room = SPLIT - d->cells;
    return room;
}

void fz_draft_add(fz_engine *e, fz_session *s) {
    fz_drafts *d = &e->drafts;
    int32_t match, room = d->most ? room_for(e, s) : 0;
    int32_t found = room > 0 ? fz_draft_find(s->tok, s->n_tok, room, d->tok, &match) : 0;
    if (found == 0) return;
    s->guess = d->tok[0];
    s->guess_long = match > SHORTEST;
    d->n = best_length(e, s, found);
    d->lane = s->lane;
    for (int32_t i = 0; i < d->n; i++) fz_batch_put(e, d->tok[i], s->n_tok + i, s->lane, true);
    e->n_outputs += d->n;
    e->stats.drafted += d->n;
}

bool fz_draft_drop(fz_engine *e) {
    if (e->drafts.n == 0) return false;
    e->batch.n_tokens -= e->drafts.n;
    e->n_outputs -= e->drafts.n;
    e->drafts.n = 0;
    return true;
}

void fz_draft_end(fz_engine *e) {
    fz_drafts *d = &e->drafts;
    if (d->accepted && e->lanes[d->lane].owner) fz_charge_drafted(e->lanes[d->lane].owner, d->accepted);
    if (d->n > d->accepted) fz_lane_trim(e, d->lane, e->lanes[d->lane].n);
    e->stats.draft_accepted += d->accepted;
    d->n = d->accepted = 0;
}

/* --- at the start ----------------------------------------------------------------------------------------- */

static const char TEXT[] = "A name is copied from a prompt.";

static bool refuse(fz_drafts *d, const char *why) {
    d->most = 0;
    d->why = why;
    return false;
}

/* Decodes `n` tokens of the text from place `at` on, with logits of each; what was behind it is cut off first. */
static bool decoded(fz_engine *e, const int32_t *text, int32_t at, int32_t n) {
    if (!llama_memory_seq_rm(e->memory, 0, at, -1)) return false;
    e->batch.n_tokens = 0;
    for (int32_t i = 0; i < n; i++) fz_batch_put(e, text[at + i], at + i, 0, true);
    return fz_rows_decode(e) == 0;
}

/* Whether all logits of the first STEPS tokens have the same bits in batches of this width as `alone`. */
static bool is_same(fz_engine *e, const int32_t *text, int32_t steps, int32_t width, const float *alone) {
    for (int32_t at = 0; at + width <= steps; at += width) {
        if (!decoded(e, text, at, width)) return false;
        for (int32_t row = 0; row < width; row++)
            if (memcmp(alone + (size_t)(at + row) * (size_t)e->n_vocab, fz_rows_all(e, row, row), sizeof *alone * (size_t)e->n_vocab) != 0)
                return false;
    }
    return true;
}

/* Tokens one by one, then in batches that grow, as long as these give the same. */
static bool check(fz_engine *e, float *alone) {
    fz_drafts *d = &e->drafts;
    int32_t text[sizeof TEXT + 1], n = llama_tokenize(e->vocab, TEXT, (int32_t)sizeof TEXT - 1, text, sizeof TEXT + 1, true, false);
    if (n < STEPS) return refuse(d, "the model's vocabulary makes too few tokens of the text it is tried with");
    for (int32_t at = 0; at < STEPS; at++) {
        if (!decoded(e, text, at, 1)) return refuse(d, "llama.cpp could not decode the text it is tried with");
        memcpy(alone + (size_t)at * (size_t)e->n_vocab, fz_rows_all(e, 0, 0), sizeof *alone * (size_t)e->n_vocab);
    }
    if (!llama_memory_seq_rm(e->memory, 0, 1, -1)) return refuse(d, "the model's memory cannot be cut behind what was said");
    while (d->most < FZ_DRAFTS && is_same(e, text, STEPS, d->most + 2, alone)) d->most++;
    return d->most > 0 || refuse(d, "tokens that are decoded at once get other logits than one by one");
}

void fz_drafts_open(fz_engine *e) {
    fz_drafts *d = &e->drafts;
    d->why = "";
    if (e->opt.drafts == FZ_DRAFTS_OFF) {
        refuse(d, "it was asked for");
        return;
    }
    float *alone = malloc(sizeof *alone * (size_t)e->n_vocab * STEPS);
    llama_memory_clear(e->memory, true);
    if (!alone) refuse(d, "no memory for it");
    else check(e, alone);
    free(alone);
    llama_memory_clear(e->memory, true);
}
