/* The functions of gemma_bridge.h. See there for what they promise, and gemma_loop.c for the thread behind them. */
#include "gemma_bridge.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gemma_internal.h"

/* --- the vocabulary; it never changes, so no lock -------------------------------------------------------- */

int32_t fz_tokenize(const fz_engine *e, const char *text, int32_t len, int32_t special, int32_t bos, int32_t *tokens,
                    int32_t cap) {
    if (len < 0 || (len > 0 && !text) || cap < 0) return FZ_E_INVALID;
    int32_t n = llama_tokenize(e->vocab, text ? text : "", len, tokens, cap, bos != 0, special != 0);
    return n == INT32_MIN ? FZ_E_INVALID : n < 0 ? -n : n;
}

int32_t fz_piece(const fz_engine *e, int32_t token, int32_t special, char *buf, int32_t cap) {
    if (token < 0 || token >= e->n_vocab || cap < 0) return FZ_E_INVALID;
    int32_t n = llama_token_to_piece(e->vocab, token, buf, cap, 0, special != 0);
    return n < 0 ? -n : n;
}

int32_t fz_token_kind(const fz_engine *e, int32_t token) {
    if (token < 0 || token >= e->n_vocab) return FZ_E_INVALID;
    char text[64] = {0};
    enum llama_token_attr attr = llama_vocab_get_attr(e->vocab, token);
    bool control = (attr & LLAMA_TOKEN_ATTR_CONTROL) != 0;
    if (attr & LLAMA_TOKEN_ATTR_USER_DEFINED) {
        int32_t n = llama_token_to_piece(e->vocab, token, text, sizeof text, 0, true);
        control = control || (n > 1 && text[0] == '<' && text[n - 1] == '>');
    }
    return (control ? 1 : 0) | (llama_vocab_is_eog(e->vocab, token) ? 2 : 0);
}

int32_t fz_marks(const fz_engine *e, int32_t *tokens, int32_t cap) {
    const int marks = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN;
    if (cap < 0 || (cap > 0 && !tokens)) return FZ_E_INVALID;
    int32_t n = 0;
    for (int32_t t = 0; t < e->n_vocab; t++) {
        if (!(llama_vocab_get_attr(e->vocab, t) & marks)) continue;
        if (n < cap) tokens[n] = t;
        n++;
    }
    return n;
}

int32_t fz_token_bos(const fz_engine *e) { return llama_vocab_bos(e->vocab); }

int32_t fz_token_eos(const fz_engine *e) { return llama_vocab_eos(e->vocab); }

uintptr_t fz_vocab_address(const fz_engine *e) { return (uintptr_t)e->vocab; }

uintptr_t fz_tokenize_address(void) { return (uintptr_t)&llama_tokenize; }

int32_t fz_meta(const fz_engine *e, const char *key, char *buf, size_t cap) {
    return llama_model_meta_val_str(e->model, key, buf, cap);
}

/* --- sessions -------------------------------------------------------------------------------------------- */

static fz_session *find(const fz_engine *e, uint64_t id) {
    for (int32_t i = 0; i < e->n_sessions; i++)
        if (e->sessions[i]->id == id && !e->sessions[i]->closing) return e->sessions[i];
    return NULL;
}

int32_t fz_session_open(fz_engine *e, uint64_t *session) {
    fz_session *s = calloc(1, sizeof *s);
    if (!s) return FZ_E_MEMORY;
    s->lane = -1;
    s->row = -1;
    pthread_mutex_lock(&e->lock);
    int32_t open = 0, code = FZ_OK;
    for (int32_t i = 0; i < e->n_sessions; i++) open += !e->sessions[i]->closing;
    if (e->closed) code = FZ_E_CLOSED;
    else if (open >= e->opt.n_sessions || e->n_sessions >= e->opt.n_sessions + FZ_CLOSING) code = FZ_E_OVERLOADED;
    if (code == FZ_OK) {
        *session = s->id = e->next_id++;
        e->sessions[e->n_sessions++] = s;
        s = NULL;
    }
    pthread_mutex_unlock(&e->lock);
    free(s);
    return code;
}

/* Locked. */
static void stop(fz_engine *e, fz_session *s) {
    if (s->state == FZ_S_QUEUED) {
        fz_finish(e, s, FZ_ABORTED, 0, NULL);
    } else if (s->state == FZ_S_RUNNING) {
        s->abort = true;
        if (e->alone == s) atomic_store(&e->stop_decode, true);
        fz_poke(e);
    }
}

int32_t fz_session_close(fz_engine *e, uint64_t session) {
    pthread_mutex_lock(&e->lock);
    fz_session *s = find(e, session);
    if (s) {
        enum fz_state was = s->state;
        s->closing = true;
        if (was == FZ_S_IDLE && !s->mask_stale) fz_session_free(e, s);
        else if (was != FZ_S_IDLE) stop(e, s); /* ends with fz_finish, which frees it */
    }
    pthread_mutex_unlock(&e->lock);
    return s ? FZ_OK : FZ_E_UNKNOWN;
}

int32_t fz_session_tokens(fz_engine *e, uint64_t session) {
    pthread_mutex_lock(&e->lock);
    const fz_session *s = find(e, session);
    int32_t n = !s ? FZ_E_UNKNOWN : s->state == FZ_S_RUNNING ? FZ_E_BUSY : s->n_tok;
    pthread_mutex_unlock(&e->lock);
    return n;
}

static int32_t check_params(const fz_params *p, char *err, size_t len) {
    if (p->max_tokens < 1) return fz_fail(err, len, FZ_E_INVALID, "max_tokens must be at least 1");
    if (!(p->temperature >= 0) || !(p->top_p > 0) || p->top_p > 1 || !(p->min_p >= 0) || p->min_p > 1 || p->top_k < 0)
        return fz_fail(err, len, FZ_E_INVALID, "temperature, top_k, top_p or min_p is outside its limits");
    if (!(p->repeat_penalty > 0)) return fz_fail(err, len, FZ_E_INVALID, "repeat_penalty must be above 0");
    if (p->timeout_ms < 1) return fz_fail(err, len, FZ_E_INVALID, "timeout_ms must be at least 1");
    if (p->constrained != 0 && p->constrained != 1) return fz_fail(err, len, FZ_E_INVALID, "constrained is 0 or 1");
    if (p->n_stop < 0 || p->n_stop > FZ_MAX_STOPS) return fz_fail(err, len, FZ_E_INVALID, "at most 16 stop texts");
    for (int32_t i = 0; i < p->n_stop; i++)
        if (!p->stop[i] || p->stop_len[i] < 1 || p->stop_len[i] > FZ_MAX_STOP)
            return fz_fail(err, len, FZ_E_INVALID, "a stop text has 1 to %d bytes", FZ_MAX_STOP);
    return FZ_OK;
}

/* The session's own copy of the parameters. */
static bool keep_params(fz_session *s, const fz_params *p) {
    size_t all = 1, at = 0;
    for (int32_t i = 0; i < p->n_stop; i++) all += (size_t)p->stop_len[i];
    char *text = malloc(all);
    if (!text) return false;
    free(s->stop_text);
    s->stop_text = text;
    s->params = *p;
    for (int32_t i = 0; i < p->n_stop; i++) {
        memcpy(text + at, p->stop[i], (size_t)p->stop_len[i]);
        s->params.stop[i] = text + at;
        at += (size_t)p->stop_len[i];
    }
    return true;
}

static bool keep_tokens(fz_session *s, const int32_t *tokens, int32_t n) {
    if (s->n_tok + n > s->cap_tok) {
        int32_t *grown = realloc(s->tok, sizeof *grown * (size_t)(s->n_tok + n + 256));
        if (!grown) return false;
        s->tok = grown;
        s->cap_tok = s->n_tok + n + 256;
    }
    memcpy(s->tok + s->n_tok, tokens, sizeof *tokens * (size_t)n);
    s->n_before = s->n_tok;
    s->n_tok += n;
    return true;
}

static void reset_request(fz_session *s) {
    memset(&s->end, 0, sizeof s->end);
    s->held.len = s->out.len = 0;
    s->abort = s->ended = s->noted = s->prompt_done = s->over = s->mask_done = s->begun = false;
    s->gave_way = s->beside = false;
    s->due = FZ_DUE_NOT;
    s->passed = s->passed_own = s->reached = 0;
    s->n_prompt = s->n_tok;
    s->n_cached = s->n_gen = s->n_forced = s->n_ff = s->in_batch = 0;
    s->row = -1;
    s->mask_code = FZ_OK;
    s->late_until_us = s->wanted_us = 0;
    s->start_us = s->first_us = s->last_us = s->told_us = 0;
    s->submit_us = fz_now_us();
    s->deadline_us = s->submit_us + (int64_t)s->params.timeout_ms * 1000;
    fz_rng_seed(&s->rng, s->params.seed);
    fz_draft_forget(s);
}

/* Locked. */
static int32_t submit(fz_engine *e, fz_session *s, const int32_t *tokens, int32_t n, const fz_params *params,
                      char *err, size_t len) {
    if (s->state != FZ_S_IDLE) return fz_fail(err, len, FZ_E_BUSY, "the session is generating");
    if (s->n_tok + n == 0) return fz_fail(err, len, FZ_E_INVALID, "the conversation is empty");
    if (s->n_tok > e->n_ctx - 1 - n)
        return fz_fail(err, len, FZ_E_CONTEXT, "the conversation has %d of %d tokens, and this adds %d", (int)s->n_tok,
                    (int)e->n_ctx, (int)n);
    fz_client *client = fz_client_of(e, params->user, params->client);
    if (fz_busy(e) >= e->opt.n_slots + e->opt.n_queue && !fz_make_room(e, client))
        return fz_fail(err, len, FZ_E_OVERLOADED, "%d generations wait already", (int)fz_waiting(e));
    if (params->constrained && !s->bits && !(s->bits = calloc((size_t)e->n_words, sizeof *s->bits)))
        return fz_fail(err, len, FZ_E_MEMORY, "no memory for a mask");
    if (!keep_params(s, params) || !keep_tokens(s, tokens, n))
        return fz_fail(err, len, FZ_E_MEMORY, "no memory for the conversation");
    reset_request(s);
    s->client = client;
    s->ticket = ++e->tickets;
    s->state = FZ_S_QUEUED;
    e->queue[e->n_queued++] = s;
    fz_poke(e);
    return FZ_OK;
}

int32_t fz_submit(fz_engine *e, uint64_t session, const int32_t *tokens, int32_t n_tokens, const fz_params *params,
                  char *err, size_t err_len) {
    if (!params || n_tokens < 0 || (n_tokens > 0 && !tokens))
        return fz_fail(err, err_len, FZ_E_INVALID, "tokens and params are needed");
    for (int32_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= e->n_vocab)
            return fz_fail(err, err_len, FZ_E_INVALID, "token %d is not in the vocabulary", (int)tokens[i]);
    int32_t code = check_params(params, err, err_len);
    if (code != FZ_OK) return code;
    pthread_mutex_lock(&e->lock);
    fz_session *s = find(e, session);
    if (e->closed) code = fz_fail(err, err_len, FZ_E_CLOSED, "the engine is being closed");
    else if (!s) code = fz_fail(err, err_len, FZ_E_UNKNOWN, "there is no such session");
    else code = submit(e, s, tokens, n_tokens, params, err, err_len);
    pthread_mutex_unlock(&e->lock);
    return code;
}

int32_t fz_abort(fz_engine *e, uint64_t session) {
    pthread_mutex_lock(&e->lock);
    fz_session *s = find(e, session);
    if (s) stop(e, s);
    pthread_mutex_unlock(&e->lock);
    return s ? FZ_OK : FZ_E_UNKNOWN;
}

int32_t fz_ready(fz_engine *e, uint64_t *sessions, int32_t cap) {
    int32_t n = 0;
    uint64_t count;
    pthread_mutex_lock(&e->lock);
    ssize_t ignored = read(e->efd, &count, sizeof count);
    (void)ignored;
    atomic_store(&e->signalled, false);
    for (int32_t i = 0; i < e->n_sessions; i++) {
        fz_session *s = e->sessions[i];
        if (!s->noted || s->closing) continue;
        if (n == cap) {
            fz_note(e, s); /* the rest next time */
            break;
        }
        s->noted = false;
        sessions[n++] = s->id;
    }
    pthread_mutex_unlock(&e->lock);
    return n;
}

int32_t fz_take(fz_engine *e, uint64_t session, char *buf, int32_t cap, fz_progress *progress) {
    if (!progress || !buf || cap < 16) return FZ_E_INVALID;
    pthread_mutex_lock(&e->lock);
    fz_session *s = find(e, session);
    if (!s) {
        pthread_mutex_unlock(&e->lock);
        return FZ_E_UNKNOWN;
    }
    size_t n = fz_text_cut(&s->out, (size_t)cap);
    if (n) memcpy(buf, s->out.data, n);
    bool paused = (int64_t)s->out.len > e->opt.out_limit;
    fz_bytes_drop(&s->out, n);
    if (paused && (int64_t)s->out.len <= e->opt.out_limit) fz_poke(e);
    *progress = s->end;
    progress->more = s->out.len > 0;
    pthread_mutex_unlock(&e->lock);
    return (int32_t)n;
}

/* --- masks ----------------------------------------------------------------------------------------------- */

/* Those that run first; one that lets others go before it does not wait for its mask until it runs again. */
static fz_session *wants_mask(const fz_engine *e) {
    for (int32_t i = 0; i < e->n_running; i++)
        if (e->running[i]->mask == FZ_M_WANTED) return e->running[i];
    for (int32_t i = 0; i < e->n_queued; i++)
        if (e->queue[i]->mask == FZ_M_WANTED) return e->queue[i];
    return NULL;
}

int32_t fz_mask_next(fz_engine *e, int32_t timeout_ms, fz_mask_job *job) {
    int64_t until = fz_now_us() + (int64_t)timeout_ms * 1000;
    struct timespec t = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
    fz_session *s = NULL;
    int32_t code = FZ_OK;
    pthread_mutex_lock(&e->lock);
    while (!e->closed && !(s = wants_mask(e)))
        if (pthread_cond_timedwait(&e->mask_wake, &e->lock, &t) != 0 && fz_now_us() >= until) break;
    if (e->closed) {
        code = FZ_E_CLOSED;
    } else if (!s) {
        code = 1;
    } else {
        s->mask = FZ_M_TAKEN;
        *job = (fz_mask_job){s->id, s->serial, s->mask_token, e->n_words, s->bits};
    }
    pthread_mutex_unlock(&e->lock);
    return code;
}

/* Locked. The session whose job this is; a session that is being closed counts. */
static fz_session *of_job(const fz_engine *e, uint64_t session, uint64_t serial) {
    for (int32_t i = 0; i < e->n_sessions; i++)
        if (e->sessions[i]->id == session && e->sessions[i]->serial == serial) return e->sessions[i];
    return NULL;
}

int32_t fz_mask_ff(fz_engine *e, uint64_t session, uint64_t serial, const int32_t *tokens, int32_t n, int32_t done) {
    if (n < 0 || n > FZ_MAX_FF || (n > 0 && !tokens)) return FZ_E_INVALID;
    for (int32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= e->n_vocab) return FZ_E_INVALID;
    int32_t code = FZ_OK;
    pthread_mutex_lock(&e->lock);
    fz_session *s = of_job(e, session, serial);
    if (!s || s->mask != FZ_M_TAKEN) {
        code = FZ_E_UNKNOWN;
    } else {
        if (n > s->cap_ff) {
            int32_t *grown = realloc(s->ff, sizeof *grown * (size_t)n);
            if (grown) {
                s->ff = grown;
                s->cap_ff = n;
            } else {
                code = FZ_E_MEMORY;
            }
        }
        if (code == FZ_OK) {
            if (n) memcpy(s->ff, tokens, sizeof *tokens * (size_t)n);
            s->n_ff = s->mask_stale ? 0 : n;
            s->mask_done = done != 0;
            s->mask = FZ_M_FORCED;
            fz_poke(e);
        }
    }
    pthread_mutex_unlock(&e->lock);
    return code;
}

int32_t fz_mask_ready(fz_engine *e, uint64_t session, uint64_t serial, int32_t code) {
    int32_t result = FZ_OK;
    pthread_mutex_lock(&e->lock);
    fz_session *s = of_job(e, session, serial);
    if (!s || (s->mask != FZ_M_TAKEN && s->mask != FZ_M_FORCED)) {
        result = FZ_E_UNKNOWN;
    } else if (s->mask_stale) {
        s->mask_stale = false;
        s->mask = FZ_M_NONE;
        if (s->closing && s->state == FZ_S_IDLE) fz_session_free(e, s);
        fz_poke(e);
    } else {
        s->mask = FZ_M_READY;
        s->mask_code = code;
        fz_poke(e);
    }
    pthread_mutex_unlock(&e->lock);
    return result;
}

void fz_stats_get(fz_engine *e, fz_stats *stats) {
    pthread_mutex_lock(&e->lock);
    *stats = e->stats;
    stats->sessions = 0;
    for (int32_t i = 0; i < e->n_sessions; i++) stats->sessions += !e->sessions[i]->closing;
    stats->running = e->n_running;
    stats->queued = fz_waiting(e);
    stats->n_ctx = e->n_ctx;
    stats->n_ctx_train = llama_model_n_ctx_train(e->model);
    stats->n_vocab = e->n_vocab;
    stats->n_slots = e->opt.n_slots;
    stats->model_bytes = (int64_t)llama_model_size(e->model);
    stats->rows_limit = e->rows.limit;
    stats->whole_rows = e->rows.whole_sizes ? 32 - __builtin_clz(e->rows.whole_sizes) : 0;
    strncpy(stats->rows_why, e->rows.why ? e->rows.why : "", sizeof stats->rows_why - 1);
    stats->drafts_limit = e->drafts.most;
    strncpy(stats->drafts_why, e->drafts.why ? e->drafts.why : "", sizeof stats->drafts_why - 1);
    stats->turn_tokens = FZ_TURN;
    stats->credit_tokens = FZ_CREDIT;
    stats->most_passes = FZ_PASSES;
    stats->kv_tokens = 0;
    for (int32_t i = 0; i < e->n_lanes; i++) stats->kv_tokens += e->lanes[i].n;
    stats->parked_tokens = stats->parked_bytes = 0;
    for (int32_t i = 0; i < e->n_parked; i++) {
        stats->parked_tokens += e->parked[i].n;
        stats->parked_bytes += (int64_t)e->parked[i].size;
    }
    pthread_mutex_unlock(&e->lock);
}
