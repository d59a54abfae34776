/* Opening and closing an engine: the model, the context, the thread. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "gemma_internal.h"

enum { REMEMBERED = 64 }; /* clients without a generation, the latest */

#if !defined FZ_LLAMA_VERSION || !defined FZ_GGML_COMMIT
#error "FZ_LLAMA_VERSION and FZ_GGML_COMMIT say which release the header belongs to; native/setup.py defines them"
#endif

int32_t fz_fail(char *err, size_t err_len, int32_t code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (err && err_len) vsnprintf(err, err_len, format, args);
    va_end(args);
    return code;
}

const char *fz_built_for(void) { return FZ_LLAMA_VERSION; }

const char *fz_loaded(void) { return llama_version(); }

void fz_memory_trim(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/* Asked on the thread that decodes; there, too, llama.cpp says its errors. A decode that was told to stop is none. */
static _Thread_local bool told_to_stop;
static _Thread_local uint32_t asked;

static bool abort_asked(void *data) {
    fz_engine *e = data;
    int64_t until = atomic_load_explicit(&e->decode_deadline_us, memory_order_relaxed);
    bool look = until != INT64_MAX && asked++ % 4 == 0; /* the clock; a decode asks some six hundred times */
    told_to_stop = atomic_load_explicit(&e->stop_decode, memory_order_relaxed) || (look && fz_now_us() >= until);
    return told_to_stop;
}

/* llama.cpp's errors go to stderr, the rest of its chatter nowhere. */
static void log_errors(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR && !told_to_stop) fputs(text, stderr);
}

/* --- open and close -------------------------------------------------------------------------------------- */

static int32_t check_options(fz_options *o, char *err, size_t len) {
    static const fz_options none;
    if (!memcmp(o, &none, sizeof none)) return fz_fail(err, len, FZ_E_INVALID, "the options are empty");
    if (o->n_ctx < 0 || (o->n_ctx > 0 && o->n_ctx < 64) || o->n_ctx > 1 << 22)
        return fz_fail(err, len, FZ_E_INVALID, "n_ctx is %d, and must be 0 or 64 to 4194304", (int)o->n_ctx);
    if (o->n_slots < 1 || o->n_slots > FZ_MAX_SLOTS)
        return fz_fail(err, len, FZ_E_INVALID, "n_slots is %d, and must be 1 to %d", (int)o->n_slots, FZ_MAX_SLOTS);
    if (o->n_sessions < 1 || o->n_sessions > 4096)
        return fz_fail(err, len, FZ_E_INVALID, "n_sessions is %d, and must be 1 to 4096", (int)o->n_sessions);
    if (o->n_queue < 0 || o->n_queue > 4096)
        return fz_fail(err, len, FZ_E_INVALID, "n_queue is %d, and must be 0 to 4096", (int)o->n_queue);
    if (o->n_threads < 0 || o->n_threads > 512)
        return fz_fail(err, len, FZ_E_INVALID, "n_threads is %d, and must be 0 to 512", (int)o->n_threads);
    if (o->stall_ms < 0 || o->stall_ms > 10000 || o->out_limit < 0 || o->n_gpu_layers < -1)
        return fz_fail(err, len, FZ_E_INVALID, "stall_ms, out_limit or n_gpu_layers is outside its limits");
    if (o->drafts < FZ_DRAFTS_EXACT || o->drafts > FZ_DRAFTS_ALWAYS)
        return fz_fail(err, len, FZ_E_INVALID, "drafts is %d, and must be 0 to 2", (int)o->drafts);
    if (o->stall_ms == 0) o->stall_ms = 80;
    if (o->out_limit == 0) o->out_limit = 16384;
    if (o->n_threads == 0) o->n_threads = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    return FZ_OK;
}

static int32_t load(fz_engine *e, const char *path, char *err, size_t len) {
    struct llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = e->opt.n_gpu_layers;
    e->model = llama_model_load_from_file(path, mp);
    if (!e->model) return fz_fail(err, len, FZ_E_MODEL, "%s: llama.cpp cannot load it", path);
    e->vocab = llama_model_get_vocab(e->model);
    e->n_vocab = llama_vocab_n_tokens(e->vocab);
    if (e->n_vocab < 2) return fz_fail(err, len, FZ_E_MODEL, "%s: a model without a vocabulary", path);
    e->n_words = (e->n_vocab + 31) / 32;
    e->suppress = llama_vocab_get_suppress_tokens(e->vocab, &e->n_suppress);
    if (!e->suppress) e->n_suppress = 0;
    int32_t trained = llama_model_n_ctx_train(e->model);
    e->n_ctx = e->opt.n_ctx ? e->opt.n_ctx : trained > 8192 ? 8192 : trained;
    e->n_lanes = e->opt.n_slots * 2 + 8 > FZ_MAX_LANES ? FZ_MAX_LANES : e->opt.n_slots * 2 + 8;
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = (uint32_t)e->n_ctx;
    cp.n_batch = cp.n_ubatch = FZ_BATCH;
    cp.n_seq_max = (uint32_t)e->n_lanes;
    cp.n_outputs_max = (uint32_t)e->n_lanes; /* llama.cpp wants one for every sequence, not 512 as for a batch */
    cp.n_threads = cp.n_threads_batch = e->opt.n_threads;
    cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED; /* skips the cells of other sequences */
    cp.swa_full = true;
    cp.kv_unified = true;
    cp.no_perf = true;
    cp.cb_eval = fz_rows_on_node;
    cp.cb_eval_user_data = e;
    cp.abort_callback = abort_asked;
    cp.abort_callback_data = e;
    e->ctx = llama_init_from_model(e->model, cp);
    if (!e->ctx)
        return fz_fail(err, len, FZ_E_MODEL, "%s: no context of %d tokens; is there memory for it?", path, (int)e->n_ctx);
    e->stats.n_threads = e->opt.n_threads;
    e->memory = llama_get_memory(e->ctx);
    e->batch = llama_batch_init(FZ_BATCH, 0, 1);
    if (!e->memory || !e->batch.token) return fz_fail(err, len, FZ_E_MODEL, "%s: a model without a KV cache", path);
    return FZ_OK;
}

static int32_t prepare(fz_engine *e, char *err, size_t len) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->wake, &attr);
    pthread_cond_init(&e->mask_wake, &attr);
    pthread_condattr_destroy(&attr);
    atomic_init(&e->stop_decode, false);
    atomic_init(&e->signalled, false);
    atomic_init(&e->decode_deadline_us, INT64_MAX);
    e->next_id = 1;
    e->efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (e->efd < 0) return fz_fail(err, len, FZ_E_MEMORY, "no eventfd: too many open files?");
    int32_t most = e->opt.n_sessions + FZ_CLOSING;
    e->sessions = calloc((size_t)most, sizeof *e->sessions);
    e->queue = calloc((size_t)most, sizeof *e->queue); /* those that gave way wait there, too */
    e->n_clients = most + REMEMBERED;
    e->clients = calloc((size_t)e->n_clients, sizeof *e->clients);
    if (!e->sessions || !e->queue || !e->clients) return fz_fail(err, len, FZ_E_MEMORY, "no memory for the sessions");
    return FZ_OK;
}

/* The loop measures the batches itself: a second thread with a team of OpenMP's would let both spin less at barriers
 * from then on, which costs a third of the speed. */
static void await_ready(fz_engine *e) {
    e->started = true;
    pthread_mutex_lock(&e->lock);
    while (!e->ready) pthread_cond_wait(&e->wake, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

int32_t fz_open(const char *path, const fz_options *options, fz_engine **engine, char *err, size_t err_len) {
    if (!path || !options || !engine) return fz_fail(err, err_len, FZ_E_INVALID, "path, options and engine are needed");
    *engine = NULL;
    if (strcmp(fz_built_for(), fz_loaded()) != 0 || strcmp(FZ_GGML_COMMIT, ggml_commit()) != 0)
        return fz_fail(err, err_len, FZ_E_MODEL, "built for llama.cpp %s (%s), but %s (%s) is loaded: install fazai-gemma again",
                    fz_built_for(), FZ_GGML_COMMIT, fz_loaded(), ggml_commit());
    fz_engine *e = calloc(1, sizeof *e);
    if (!e) return fz_fail(err, err_len, FZ_E_MEMORY, "no memory");
    e->opt = *options;
    e->efd = -1;
    int32_t code = check_options(&e->opt, err, err_len);
    fz_threads_init(&e->threads, e->opt.n_threads, e->opt.calibrate && options->n_threads == 0);
    if (code != FZ_OK) {
        free(e);
        return code;
    }
    llama_log_set(log_errors, NULL);
    llama_backend_init();
    code = prepare(e, err, err_len);
    if (code == FZ_OK) code = load(e, path, err, err_len);
    if (code == FZ_OK && !fz_sampler_init(&e->sampler, e->n_vocab))
        code = fz_fail(err, err_len, FZ_E_MEMORY, "no memory for the sampler");
    if (code == FZ_OK) {
        fz_memory_trim(); /* reading the vocabulary leaves ten megabytes behind */
        if (pthread_create(&e->thread, NULL, fz_loop, e) != 0)
            code = fz_fail(err, err_len, FZ_E_MEMORY, "no thread: too many processes?");
        else
            await_ready(e);
    }
    if (code != FZ_OK) {
        fz_close(e);
        return code;
    }
    *engine = e;
    return FZ_OK;
}

void fz_shutdown(fz_engine *e) {
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    e->closed = true;
    e->poked = true; /* the loop may be awake, and about to wait for something else */
    atomic_store(&e->stop_decode, true);
    pthread_cond_broadcast(&e->wake);
    pthread_cond_broadcast(&e->mask_wake);
    pthread_mutex_unlock(&e->lock);
}

void fz_close(fz_engine *e) {
    if (!e) return;
    fz_shutdown(e);
    if (e->started) pthread_join(e->thread, NULL);
    while (e->n_sessions > 0) fz_session_free(e, e->sessions[0]);
    for (int32_t i = 0; i < FZ_MAX_LANES; i++) free(e->lanes[i].tok);
    while (e->n_parked > 0) fz_parked_free(e, 0);
    free(e->sessions);
    free(e->queue);
    free(e->clients);
    fz_sampler_free(&e->sampler);
    fz_rows_close(e);
    if (e->batch.token) llama_batch_free(e->batch);
    if (e->ctx) llama_free(e->ctx);
    if (e->model) llama_model_free(e->model);
    if (e->efd >= 0) close(e->efd);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->wake);
    pthread_cond_destroy(&e->mask_wake);
    free(e);
}

int32_t fz_eventfd(const fz_engine *e) { return e->efd; }
