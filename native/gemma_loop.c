/*
 * The thread that owns llama.cpp's context: admit, compose a batch, decode, sample, publish. It holds the engine's
 * lock only to look at what others changed and to publish; never while llama.cpp works.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gemma_internal.h"

enum { MASK_PATIENCE_US = 10000000, FORCE_PATIENCE_US = 3000, TELL_EVERY_US = 40000 };

int64_t fz_now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

bool fz_wait_until(fz_engine *e, int64_t until_us) {
    if (until_us == INT64_MAX) return pthread_cond_wait(&e->wake, &e->lock) == 0;
    struct timespec t = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    return pthread_cond_timedwait(&e->wake, &e->lock, &t) == 0;
}

void fz_poke(fz_engine *e) {
    e->poked = true;
    pthread_cond_signal(&e->wake);
}

void fz_note(fz_engine *e, fz_session *s) {
    s->noted = true;
    if (!atomic_exchange(&e->signalled, true)) {
        uint64_t one = 1;
        ssize_t ignored = write(e->efd, &one, sizeof one); /* fails only when it is readable already */
        (void)ignored;
    }
}

void fz_session_free(fz_engine *e, fz_session *s) {
    for (int32_t i = 0; i < e->n_lanes; i++)
        if (e->lanes[i].owner == s) {
            e->lanes[i].owner = NULL;
            fz_poke(e); /* its beginning can be parked */
        }
    for (int32_t i = 0; i < e->n_sessions; i++)
        if (e->sessions[i] == s) {
            e->sessions[i] = e->sessions[--e->n_sessions];
            break;
        }
    fz_bytes_free(&s->held);
    fz_bytes_free(&s->out);
    free(s->tok);
    free(s->stop_text);
    free(s->bits);
    free(s->late);
    free(s->ff);
    free(s);
}

static void fill_end(fz_session *s) {
    fz_progress *p = &s->end;
    p->prompt_tokens = s->n_prompt;
    p->cached_tokens = s->n_cached;
    p->completion_tokens = s->n_gen;
    p->forced_tokens = s->n_forced;
    p->queued_us = s->start_us ? s->start_us - s->submit_us : fz_now_us() - s->submit_us;
    p->prefill_us = s->first_us ? s->first_us - s->start_us : 0;
    p->first_token_us = s->first_us ? s->first_us - s->submit_us : 0;
    p->decode_us = s->first_us ? s->last_us - s->first_us : 0;
}

static void leave(fz_engine *e, fz_session *s) {
    for (int32_t i = 0; i < e->n_running; i++)
        if (e->running[i] == s) {
            memmove(e->running + i, e->running + i + 1, sizeof *e->running * (size_t)(--e->n_running - i));
            break;
        }
    for (int32_t i = 0; i < e->n_queued; i++)
        if (e->queue[i] == s) {
            memmove(e->queue + i, e->queue + i + 1, sizeof *e->queue * (size_t)(--e->n_queued - i));
            break;
        }
    if (s->lane >= 0) e->lanes[s->lane].used_us = fz_now_us();
    s->state = FZ_S_IDLE;
    if (s->mask == FZ_M_TAKEN || s->mask == FZ_M_FORCED)
        s->mask_stale = true; /* the owner of the masks still writes into bits */
    else
        s->mask = FZ_M_NONE;
}

void fz_finish(fz_engine *e, fz_session *s, enum fz_reason reason, int32_t code, const char *text) {
    static const fz_params no_stops;
    size_t tail = reason == FZ_EOS || s->held.len == 0 ? 0 : fz_text_keep(&s->held, &no_stops);
    bool whole = fz_text_move(&s->held, s->held.len - tail, &s->out);
    fz_bytes_drop(&s->held, s->held.len);
    if (!whole && reason != FZ_FAILED) {
        reason = FZ_FAILED;
        code = FZ_E_MEMORY;
        text = "no memory for the text";
    }
    leave(e, s);
    s->client->used_us = fz_now_us();
    free(s->late);
    s->late = NULL;
    s->late_until_us = 0;
    if (s->n_gen == 0 && reason != FZ_EOS && reason != FZ_STOP) s->n_tok = s->n_before; /* the turn never was */
    e->stats.tokens_prompt += s->start_us ? s->n_prompt : 0;
    e->stats.tokens_cached += s->n_cached;
    e->stats.tokens_generated += s->n_gen;
    e->stats.tokens_forced += s->n_forced;
    fill_end(s);
    s->end.reason = reason;
    s->end.code = reason == FZ_FAILED ? code : FZ_OK;
    memset(s->end.message, 0, sizeof s->end.message);
    if (text) strncpy(s->end.message, text, sizeof s->end.message - 1);
    s->ended = true;
    if (s->closing && s->mask == FZ_M_NONE) {
        fz_session_free(e, s);
        return;
    }
    fz_note(e, s);
}

/* --- what a token does ----------------------------------------------------------------------------------- */

static bool push_token(fz_session *s, int32_t token) {
    if (s->n_tok == s->cap_tok) {
        int32_t cap = s->cap_tok ? s->cap_tok * 2 : 256;
        int32_t *grown = realloc(s->tok, sizeof *grown * (size_t)cap);
        if (!grown) return false;
        s->tok = grown;
        s->cap_tok = cap;
    }
    s->tok[s->n_tok++] = token;
    return true;
}

/* The tokens that made the last `bytes` of text leave the conversation: a stop text is not part of it. */
static void forget_text(fz_engine *e, fz_session *s, size_t bytes) {
    char piece[256];
    int64_t left = (int64_t)bytes;
    while (left > 0 && s->n_tok > s->n_before + 1) {
        int32_t n = llama_token_to_piece(e->vocab, s->tok[s->n_tok - 1], piece, sizeof piece, 0, false);
        left -= n < 0 ? -n : n;
        s->n_tok--;
    }
}

static bool add_piece(fz_engine *e, fz_session *s, int32_t token) {
    char small[256];
    int32_t n = llama_token_to_piece(e->vocab, token, small, sizeof small, 0, false);
    if (n >= 0) return fz_bytes_add(&s->held, small, (size_t)n);
    char *large = malloc((size_t)-n);
    if (!large) return false;
    n = llama_token_to_piece(e->vocab, token, large, -n, 0, false);
    bool done = n >= 0 && fz_bytes_add(&s->held, large, (size_t)n);
    free(large);
    return done;
}

/* Takes one token into the conversation and its text. Returns why the generation ends with it, or FZ_RUNNING. */
static enum fz_reason take_token(fz_engine *e, fz_session *s, int32_t token) {
    if (llama_vocab_is_eog(e->vocab, token)) return FZ_EOS;
    if (!push_token(s, token) || !add_piece(e, s, token)) return FZ_FAILED;
    s->n_gen++;
    int64_t stop = fz_text_stop(&s->held, &s->params);
    if (stop >= 0) {
        size_t bytes = s->held.len - (size_t)stop;
        forget_text(e, s, bytes);
        s->held.len = (size_t)stop;
        return FZ_STOP;
    }
    return s->n_gen >= s->params.max_tokens || s->n_tok >= e->n_ctx ? FZ_LENGTH : FZ_RUNNING;
}

/* Locked: text that is sure goes out. Returns whether the generation goes on. Its reader is told at most every 40 ms: on
 * few cores each waking of it takes time from the decode, and nobody reads faster. What was not told goes with the next token, or with the end. */
static bool publish(fz_engine *e, fz_session *s, enum fz_reason reason) {
    s->last_us = fz_now_us();
    if (!s->first_us) s->first_us = s->last_us;
    s->end.completion_tokens = s->n_gen;
    if (reason != FZ_RUNNING) {
        fz_finish(e, s, reason, FZ_E_MEMORY, reason == FZ_FAILED ? "no memory for the text" : NULL);
        return false;
    }
    size_t sure = s->held.len - fz_text_keep(&s->held, &s->params);
    if (sure == 0) return true;
    if (!fz_text_move(&s->held, sure, &s->out)) {
        fz_finish(e, s, FZ_FAILED, FZ_E_MEMORY, "no memory for the text");
        return false;
    }
    bool much = (int64_t)s->out.len > e->opt.out_limit; /* then the session pauses until its reader took it */
    if (!much && s->last_us - s->told_us < TELL_EVERY_US) return true;
    s->told_us = s->last_us;
    fz_note(e, s);
    return true;
}

/* Locked: tokens that the grammar forces. */
static void take_forced(fz_engine *e, fz_session *s) {
    if ((s->mask != FZ_M_FORCED && s->mask != FZ_M_READY) || (s->n_ff == 0 && !s->mask_done)) return;
    enum fz_reason reason = FZ_RUNNING;
    for (int32_t i = 0; i < s->n_ff && reason == FZ_RUNNING; i++) {
        int32_t before = s->n_gen;
        reason = take_token(e, s, s->ff[i]);
        s->n_forced += s->n_gen - before;
    }
    s->n_ff = 0;
    if (reason == FZ_RUNNING && s->mask_done) reason = FZ_EOS;
    publish(e, s, reason);
}

/* Locked. What a decode of streams took says how many go together, and how many threads decode. */
static void learn(fz_engine *e, int64_t took_us) {
    if (e->drafts.n) fz_draft_learn(e, took_us);
    fz_costs *costs = e->rows.taken ? &e->stats.short_costs : &e->stats.costs;
    if (e->drafts.n || e->streams < 1 || e->streams > costs->n || e->rows.wanted != e->rows.taken) return;
    int64_t known_us = costs->us[e->streams - 1];
    if (!fz_threads_try(&e->threads)) fz_plan_learn(costs, e->streams, took_us);
    int32_t threads = fz_threads_next(&e->threads, took_us, known_us);
    if (threads == e->stats.n_threads) return;
    e->stats.n_threads = threads;
    llama_set_n_threads(e->ctx, threads, threads);
}

/* Unlocked while llama.cpp works; returns locked. */
static int32_t decode(fz_engine *e) {
    for (;;) {
        pthread_mutex_unlock(&e->lock);
        int64_t from = fz_now_us();
        int32_t code = fz_rows_decode(e);
        int64_t took = fz_now_us() - from;
        pthread_mutex_lock(&e->lock);
        e->stats.decode_us += took;
        e->stats.decodes++;
        e->stats.short_decodes += e->rows.taken;
        e->stats.whole_decodes += e->rows.whole > 0;
        if (code == 0) learn(e, took);
        if (code != 1 || (!fz_draft_drop(e) && !fz_lane_evict(e))) return code; /* 1: no room in the cache */
    }
}

/* Locked. The batch is in the cache, or what came of it is taken out again. */
static void settle(fz_engine *e, int32_t code) {
    if (code == 0 || code == 2) fz_charge(e); /* 2: an abort ended it, which does not give back what was computed */
    if (code == 1 && fz_give_way(e)) code = 2; /* the others again, without it */
    for (int32_t i = e->n_running - 1; i >= 0; i--) {
        fz_session *s = e->running[i];
        if (!s->in_batch) continue;
        fz_lane *lane = &e->lanes[s->lane];
        if (code == 0 && fz_lane_add(e, lane, s->tok + lane->n, s->in_batch)) {
            if (s->row >= 0) s->prompt_done = true;
            continue;
        }
        fz_lane_trim(e, s->lane, lane->n);
        s->row = -1;
        if (code == 0) fz_finish(e, s, FZ_FAILED, FZ_E_MEMORY, "no memory for the conversation");
        else if (code == 1) fz_finish(e, s, FZ_FAILED, FZ_E_CONTEXT, "the cache has no room for the conversation");
        else if (code != 2) fz_finish(e, s, FZ_FAILED, FZ_E_DECODE, "llama.cpp could not decode the batch");
    }
    e->alone = NULL;
    atomic_store(&e->stop_decode, false);
}

/* Locked. Whether the mask is there; ends the session when it will not come. Others are not held up for longer than
 * they would notice: then the row is kept for later. */
static bool await_mask(fz_engine *e, fz_session *s) {
    int64_t from = fz_now_us(), until = from + MASK_PATIENCE_US;
    bool others = false;
    while (s->mask != FZ_M_READY && !s->abort && !s->closing && !e->closed) {
        others = e->n_running > 1 || e->n_queued > 0;
        until = from + (others ? FZ_MASK_SOON_US : MASK_PATIENCE_US);
        if (s->deadline_us < until) until = s->deadline_us;
        if (fz_now_us() >= until) break;
        fz_wait_until(e, until);
    }
    e->stats.wait_mask_us += fz_now_us() - from;
    if (s->abort || s->closing || e->closed) return false; /* the next step ends it */
    if (s->mask == FZ_M_READY && s->mask_code == FZ_OK) return true;
    if (s->mask != FZ_M_READY && fz_now_us() >= s->deadline_us) return false;
    if (s->mask != FZ_M_READY && others) {
        if (!s->late) s->late = malloc(sizeof *s->late * (size_t)e->n_vocab);
        if (s->late) {
            memcpy(s->late, fz_rows_all(e, s->row, s->output), sizeof *s->late * (size_t)e->n_vocab);
            s->late_until_us = from + MASK_PATIENCE_US;
            return false;
        }
    }
    fz_finish(e, s, FZ_FAILED, FZ_E_MASK, "the grammar could not be followed");
    return false;
}

/* Returns whether the generation goes on. */
static bool sample(fz_engine *e, fz_session *s, float *logits) {
    int32_t n = s->n_tok < FZ_PENALTY_LAST ? s->n_tok : FZ_PENALTY_LAST;
    for (int32_t i = 0; i < e->n_suppress; i++) logits[e->suppress[i]] = -__builtin_inff();
    const uint32_t *mask = s->params.constrained ? s->bits : NULL;
    int32_t token = fz_sample(&e->sampler, logits, mask, &s->params, &s->rng, s->tok + s->n_tok - n, n);
    enum fz_reason reason = token < 0 ? FZ_FAILED : take_token(e, s, token);
    bool goes_on = false;
    pthread_mutex_lock(&e->lock);
    s->late_until_us = 0;
    s->was_short = e->rows.taken;
    fz_draft_seen(s, token);
    e->stats.rows += e->rows.computed;
    e->rows.computed = 0;
    if (token < 0) {
        fz_finish(e, s, FZ_FAILED, FZ_E_MASK, "the grammar allows no token");
    } else {
        if (s->params.constrained && reason == FZ_RUNNING) fz_want_mask(e, s, token);
        goes_on = publish(e, s, reason);
    }
    pthread_mutex_unlock(&e->lock);
    return goes_on;
}

static float *logits_of(fz_engine *e, const fz_session *s, int32_t after) {
    if (e->rows.taken) return fz_rows_logits(e, s->output + after, s->bits);
    return fz_rows_all(e, s->row + after, s->output + after);
}

/* Locked. Whether the row behind the token that was just said may be sampled: where a grammar forces something next, or
 * allows too much for a decode that ended early, the token is decoded once more with what comes then, as without a draft. */
static bool keep_drafted(fz_engine *e, fz_session *s) {
    int64_t from = fz_now_us(), until = from + FZ_MASK_SOON_US;
    bool constrained = s->params.constrained;
    while (constrained && s->mask != FZ_M_READY && !s->abort && !s->closing && !e->closed)
        if (!fz_wait_until(e, until)) break;
    e->stats.wait_mask_us += fz_now_us() - from;
    if (s->abort || s->closing || e->closed || fz_now_us() >= s->deadline_us || fz_is_paused(e, s)) return false;
    if (constrained && (s->mask != FZ_M_READY || s->mask_code != FZ_OK || s->n_ff > 0 || s->mask_done)) return false;
    if (e->rows.taken && fz_rows_allowed(e, s->bits) > e->rows.limit) return false;
    return fz_lane_add(e, &e->lanes[s->lane], s->tok + s->n_tok - 1, 1);
}

/* The rows of the draft in their turn, until one says something else. */
static void sample_draft(fz_engine *e, fz_session *s) {
    fz_drafts *d = &e->drafts;
    for (bool goes_on = true; goes_on && d->accepted < d->n && s->tok[s->n_tok - 1] == d->tok[d->accepted];) {
        pthread_mutex_lock(&e->lock);
        goes_on = keep_drafted(e, s);
        pthread_mutex_unlock(&e->lock);
        if (!goes_on) return;
        d->accepted++;
        if (d->accepted < d->n) s->guess = d->tok[d->accepted];
        goes_on = sample(e, s, logits_of(e, s, d->accepted));
    }
}

/* Sessions without a grammar first, so that they never wait for another's mask. */
static void sample_all(fz_engine *e) {
    fz_session *rows[FZ_MAX_SLOTS];
    int32_t n = 0;
    for (int32_t pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < e->n_running; i++)
            if (e->running[i]->row >= 0 && e->running[i]->params.constrained == pass) rows[n++] = e->running[i];
    for (int32_t i = 0; i < n; i++) {
        if (rows[i]->params.constrained) {
            pthread_mutex_lock(&e->lock);
            bool go = await_mask(e, rows[i]);
            pthread_mutex_unlock(&e->lock);
            if (!go) continue;
        }
        if (sample(e, rows[i], logits_of(e, rows[i], 0)) && e->drafts.n) sample_draft(e, rows[i]);
    }
}

/* Locked, and unlocks. Whether a row was sampled that had to wait for its mask. */
static bool sample_late(fz_engine *e) {
    for (int32_t i = 0; i < e->n_running; i++) {
        fz_session *s = e->running[i];
        if (!s->late_until_us || s->mask != FZ_M_READY || s->mask_code != FZ_OK) continue;
        pthread_mutex_unlock(&e->lock);
        sample(e, s, s->late);
        pthread_mutex_lock(&e->lock);
        return true;
    }
    return false;
}

/* Locked. Forced tokens are known within a fraction of a millisecond: wait for them rather than decode without, but for
 * each of them once. */
static void gather_forced(fz_engine *e) {
    for (;;) {
        int64_t until = 0;
        for (int32_t i = e->n_running - 1; i >= 0; i--) {
            fz_session *s = e->running[i];
            if (!s->params.constrained) continue;
            if (s->mask_code != FZ_OK) {
                fz_finish(e, s, FZ_FAILED, s->mask_code, "the grammar could not be followed");
            } else if (!fz_awaits_force(s) || s->abort || s->closing) {
                take_forced(e, s);
            } else if (!fz_is_paused(e, s) && fz_pending(e, s) <= 0 && s->wanted_us + FORCE_PATIENCE_US > until) {
                until = s->wanted_us + FORCE_PATIENCE_US;
            }
        }
        if (e->closed || fz_now_us() >= until) return;
        fz_wait_until(e, until);
    }
}

void *fz_loop(void *engine) {
    fz_engine *e = engine;
    fz_calibrate(e);
    fz_drafts_open(e);
    pthread_mutex_lock(&e->lock);
    e->ready = true;
    pthread_cond_broadcast(&e->wake);
    for (;;) {
        e->poked = false;
        int64_t next = fz_retire(e);
        if (e->closed) break;
        bool waits = fz_admit(e);
        gather_forced(e);
        if (sample_late(e)) continue;
        if (fz_compose(e) == 0) {
            bool again = waits && e->n_running == 0;
            if (!again && !e->poked && (e->n_running > 0 || !fz_lane_park(e))) fz_wait_until(e, next);
            continue;
        }
        int32_t code = decode(e);
        settle(e, code);
        pthread_mutex_unlock(&e->lock);
        if (code == 0) sample_all(e);
        pthread_mutex_lock(&e->lock);
        fz_draft_end(e);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}
