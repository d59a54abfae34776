/* What the parts of the bridge share; nobody outside of native/ includes this. */
#ifndef FAZAI_GEMMA_INTERNAL_H
#define FAZAI_GEMMA_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "gemma_bridge.h"
#include "ggml-cpu.h"
#include "llama.h"

enum { FZ_CLOSING = 64 }; /* sessions that are closed and still run, beside those that are open */
enum { FZ_BATCH = 512, FZ_MAX_STOPS = 16, FZ_MAX_STOP = 1024, FZ_MAX_SLOTS = 64, FZ_PENALTY_LAST = 64 };
/* llama.cpp multiplies matrices by rows in fours, and from 64 rows on has another attention. */
enum { FZ_ROWS = 4, FZ_TILE = 64, FZ_MAX_FF = 4096, FZ_MAX_LANES = 120, FZ_KEPT = 256, FZ_MAX_PARKED = 32 };

/* How long a mask that is late may hold others up, once a token. */
enum { FZ_MASK_SOON_US = 3000 };

int64_t fz_now_us(void);

/* gemma_open.c: fills `err` with a sentence and returns `code` */
int32_t fz_fail(char *err, size_t err_len, int32_t code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* --- gemma_text.c: bytes of tokens become text: stop texts over token borders, whole characters only */

typedef struct fz_bytes {
    char *data;
    size_t len, cap;
} fz_bytes;

bool fz_bytes_add(fz_bytes *b, const char *data, size_t len);
void fz_bytes_drop(fz_bytes *b, size_t len);
void fz_bytes_free(fz_bytes *b);

/* Moves `len` bytes from the front of `held` to `out`; what is no UTF-8 becomes U+FFFD. */
bool fz_text_move(fz_bytes *held, size_t len, fz_bytes *out);

/* The first place in `held` where a stop text begins, or -1. */
int64_t fz_text_stop(const fz_bytes *held, const fz_params *params);

/* How many bytes at the end of `held` must wait: the beginning of a stop text, or of a character. */
size_t fz_text_keep(const fz_bytes *held, const fz_params *params);

/* Up to `cap` bytes of valid UTF-8, cut between characters. */
size_t fz_text_cut(const fz_bytes *out, size_t cap);

/* --- gemma_sample.c */

typedef struct fz_candidate {
    float logit;
    int32_t token;
} fz_candidate;

typedef struct fz_sampler {
    fz_candidate *items;        /* room for n_vocab of them, filled with few; one a loop */
    float *tops, *sums, *order; /* of blocks of the vocabulary: largest logit, mass, room for a selection */
    int32_t n_vocab, n_blocks;
} fz_sampler;

typedef struct fz_rng {
    uint64_t state, step;
} fz_rng;

void fz_rng_seed(fz_rng *rng, uint32_t seed);
double fz_rng_next(fz_rng *rng);

bool fz_sampler_init(fz_sampler *s, int32_t n_vocab);
void fz_sampler_free(fz_sampler *s);

/* The next token, or -1 when `mask` allows none. `logits` is changed; `recent` are the last tokens. */
int32_t fz_sample(fz_sampler *s, float *logits, const uint32_t *mask, const fz_params *params, fz_rng *rng,
                  const int32_t *recent, int32_t n_recent);

/* --- gemma_threads.c: how many threads decode. Pure: it is told what decodes took. */

enum { FZ_CHOICES = 8 };

typedef struct fz_threads {
    int32_t choice[FZ_CHOICES], n;      /* numbers of threads, the most first; one: it was asked for */
    int32_t at;                         /* the one that is used */
    int64_t best[FZ_CHOICES];           /* least ratio of what a decode took to what is known, of this trial; per mille */
    int32_t slow;                       /* decodes that took far longer than is known, lately */
    int32_t trial;                      /* 0: none; else the number of its decodes that are still to come */
    int32_t before;                     /* the choice before the trial */
    int32_t rest, pause;                /* decodes until the next trial may be, and how long the pause after it is */
} fz_threads;

void fz_threads_init(fz_threads *t, int32_t most, bool measured);
int32_t fz_threads_next(fz_threads *t, int64_t took_us, int64_t known_us); /* the threads of the next decode */
static inline bool fz_threads_try(const fz_threads *t) { return t->trial > 0; }

/* --- gemma_rows.c: logits of the allowed tokens only */

enum { FZ_STEPS = 4 };
enum fz_rows_state { FZ_ROWS_OFF, FZ_ROWS_LEARN, FZ_ROWS_CHECK, FZ_ROWS_ON };

/* What the graph does with a logit behind the matrix: x * scale + bias, or its hyperbolic tangent. */
typedef struct fz_step {
    bool tanh;
    float scale, bias;
} fz_step;

typedef struct fz_rows {
    enum fz_rows_state state;
    const char *why;            /* why it is off */
    const struct ggml_tensor *norm, *matrix, *last; /* norm and last: while the graph is looked at only */
    fz_step steps[FZ_STEPS];
    int32_t n_steps, n_embd;
    size_t row_bytes;
    ggml_vec_dot_t dot;
    ggml_from_float_t quantise; /* NULL: the kernel takes floats */
    float *hidden;              /* rows of the last decode, of n_embd */
    void *other;                /* one of them, as the kernel takes it */
    int32_t *tokens;            /* room for the vocabulary */
    float *logits;              /* of the vocabulary; only those that were asked for last are true */
    int32_t limit;              /* allowed tokens of a batch up to which a decode ends early */
    int64_t saves_us;           /* by ending early */
    bool wanted;                /* of this decode: each row has a grammar */
    bool timing;                /* end early in any case, for few: it is being measured */
    bool taken;                 /* the last decode ended early (or, while checking, its hidden rows are there) */
    uint32_t whole_sizes;       /* bit n - 1: of a decode with n rows all logits are computed by our own kernel */
    void *prepared;             /* hidden rows as that takes them */
    float *all;                 /* the logits of each */
    int32_t whole;              /* the last decode ended early, and all logits of so many rows are to be computed, or are */
    int64_t computed;
} fz_rows;

/* --- gemma_matrix.c: all logits of a few hidden rows, where there is a kernel for the matrix's type on this processor */

enum { FZ_WHOLE = 8 };

bool fz_matrix_knows(enum ggml_type type);
size_t fz_matrix_room(int32_t n_embd);                  /* bytes of a prepared row */
void fz_matrix_prepare(const void *quantised, int32_t n_embd, void *prepared);
/* The logits of one token: `n` hidden rows, each prepared behind the one before. */
void fz_matrix_multiply(const void *matrix, int32_t token, int32_t n_embd, const void *prepared, int32_t n, float *out);

/* --- gemma_draft.c: what is probably said next, tried in the same decode */

/* From FZ_ROWS rows on llama.cpp's kernels for repacked weights quantise what goes in otherwise, which shows rarely. */
enum { FZ_DRAFTS = FZ_ROWS - 2 };

typedef struct fz_drafts {
    int32_t most;               /* tokens of a draft; 0: none */
    const char *why;            /* why there are none */
    int64_t us[2][FZ_DRAFTS];   /* what decodes with 1, 2, … took: whole ones, and those that end early; 0: not known */
    int32_t cells;              /* of the cache: all beyond were free since it was empty */
    int32_t tok[FZ_DRAFTS], n;  /* the draft in this step's batch */
    int32_t accepted;           /* of it */
    int32_t lane;
} fz_drafts;

/* How many of `n` tokens give the most for the time, when each is right with this probability and us[k] is what a decode
 * with k of them takes; without measurements all. */
int32_t fz_draft_length(float hit, const int64_t *us, int32_t n);

/* The tokens that followed the latest of the longest earlier places equal to the end; *match: how long it is. */
int32_t fz_draft_find(const int32_t *tok, int32_t n, int32_t most, int32_t *draft, int32_t *match);

/* --- the engine's parts */

enum fz_state { FZ_S_IDLE, FZ_S_QUEUED, FZ_S_RUNNING };
enum fz_mask_state { FZ_M_NONE, FZ_M_WANTED, FZ_M_TAKEN, FZ_M_FORCED, FZ_M_READY };

/* A turn that others may interrupt; all but its own client; nobody. */
enum fz_due { FZ_DUE_NOT, FZ_DUE_OWN, FZ_DUE_ALL };

typedef struct fz_session fz_session;

/* A process that asks. */
typedef struct fz_client {
    uint32_t user, id;
    int32_t credit;             /* in eighths of a token */
    bool marked;                /* while all clients are looked at */
    int64_t used_us;            /* when a generation of it began or ended last; 0: the place is free */
} fz_client;

/* A sequence of llama.cpp's KV cache, and the tokens whose keys and values it holds. */
typedef struct fz_lane {
    int32_t *tok;
    int32_t n, cap;
    int32_t prompt, cut;        /* the last prompt's length, and where its last batch began */
    fz_session *owner;          /* NULL: a kept prefix, or free when n is 0 */
    int64_t used_us;
} fz_lane;

/* A beginning that a closed session left, with its keys and values, outside of the cache. */
typedef struct fz_parked {
    int32_t *tok;
    uint8_t *state;
    size_t size;
    int32_t n, prompt, cut;
    int64_t used_us;
} fz_parked;

struct fz_session {
    uint64_t id;
    enum fz_state state;
    bool closing, abort, ended, noted;

    /* The loop's while RUNNING, otherwise guarded by the engine's lock. */
    int32_t *tok;               /* the conversation */
    int32_t n_tok, cap_tok;
    int32_t n_before;           /* of it, before this request */
    int32_t lane;               /* -1: none */
    fz_params params;
    char *stop_text;            /* what params.stop points into */
    fz_rng rng;
    fz_bytes held;              /* text that may still be a stop text or half a character */
    int32_t n_prompt, n_cached, n_gen, n_forced;
    int32_t row;                /* of this step's batch; -1: no logits */
    int32_t output;             /* which of the batch's rows with logits that is */
    int32_t in_batch;           /* its tokens in this step's batch */
    bool prompt_done;
    bool begun;                 /* it ran before: it waits for a slot, room or its reader again */
    fz_client *client;          /* while it runs or waits */
    int64_t ticket;             /* since when it waits: smaller is earlier */
    int32_t turn, turn_most;    /* tokens since it started, and after how many its turn is over */
    int32_t passed;             /* since its last turn: how often other clients' started for whom there was room, or took its place */
    int32_t passed_own;         /* the same, by its own client's, and how often those went first that need not be computed again */
    enum fz_due due;            /* it was passed often enough: who may not interrupt this turn */
    bool beside;                /* it started while another waited that goes before it */
    bool gave_way;              /* its room was needed */
    int32_t reached;            /* so many of its tokens were in the cache when it last lost its slot; what is beyond is new */
    bool tried, blocked, yielding; /* while slots are given out: looked at, without room, lets another go first */
    float *late;                /* its logits, while its mask is late */
    int64_t late_until_us;      /* 0: none are */
    int64_t wanted_us;          /* since when it waits for a mask */
    int32_t guess;              /* the first token that a draft has or would have; -1: none */
    bool guess_long;            /* of a long match */
    bool was_short;             /* its last decode ended early */
    float hits[2];              /* how often guesses were right lately, of short matches and of long ones */
    bool over;                  /* the text or the grammar said that it is the end */
    int64_t submit_us, start_us, first_us, last_us, told_us, deadline_us, stepped_us;

    /* Guarded by the lock. */
    fz_bytes out;
    fz_progress end;
    enum fz_mask_state mask;
    bool mask_stale, mask_done;
    int32_t mask_code;
    uint64_t serial;
    int32_t mask_token;
    uint32_t *bits;
    int32_t *ff;
    int32_t n_ff, cap_ff;
};

struct fz_engine {
    struct llama_model *model;
    struct llama_context *ctx;
    const struct llama_vocab *vocab;
    llama_memory_t memory;
    struct llama_batch batch;
    int32_t n_vocab, n_words, n_ctx, n_lanes;
    fz_options opt;
    const llama_token *suppress;
    int32_t n_suppress;

    pthread_t thread;
    bool started, ready;        /* the thread is there; it has calibrated */
    pthread_mutex_t lock;
    pthread_cond_t wake;        /* the loop waits on it */
    pthread_cond_t mask_wake;   /* those in fz_mask_next */
    int efd;
    bool closed;                /* fz_shutdown was called */
    bool poked;                 /* something changed since the loop last looked */
    _Atomic bool stop_decode;   /* read by llama.cpp between operations */
    _Atomic int64_t decode_deadline_us;
    _Atomic bool signalled;

    fz_session **sessions;
    int32_t n_sessions;
    uint64_t next_id;
    fz_session **queue;
    int32_t n_queued;
    fz_client *clients;         /* those of all generations, and the latest of others */
    int32_t n_clients;
    int64_t tickets;
    fz_session *running[FZ_MAX_SLOTS];
    int32_t n_running;
    fz_session *alone;          /* the only session in the decode that runs now */
    int32_t streams;            /* in the decode that runs now, one token of each and nothing else; otherwise 0 */
    int32_t n_outputs;          /* rows with logits in this step's batch */
    uint32_t rounds;            /* of running streams */

    fz_lane lanes[FZ_MAX_LANES];
    fz_parked parked[FZ_MAX_PARKED];
    int32_t n_parked;
    fz_sampler sampler;
    fz_rows rows;
    fz_drafts drafts;
    fz_stats stats;
    fz_threads threads;
};

/* gemma_kv.c; the loop only */
bool fz_lane_attach(fz_engine *e, fz_session *s);       /* sets s->n_cached; false: no memory */
bool fz_lane_add(fz_engine *e, fz_lane *lane, const int32_t *tok, int32_t n);
void fz_lane_trim(fz_engine *e, int32_t index, int32_t n);
bool fz_lane_evict(fz_engine *e);                        /* the later half of a long one first; false: nothing that could go */
void fz_lane_drop(fz_engine *e, int32_t index);          /* what it holds is computed again when it is wanted */
bool fz_lane_park(fz_engine *e);                         /* locked, and unlocks; false: nothing to park */
void fz_parked_free(fz_engine *e, int32_t index);
int32_t fz_reusable(int32_t n_prompt);                   /* how many of a prompt's tokens may be reused */

/* gemma_plan.c; the loop only */
void fz_calibrate(fz_engine *e);
void fz_plan_from(fz_costs *costs, int32_t n);           /* from us[0..n) to plan[0..n) */
void fz_plan_learn(fz_costs *costs, int32_t k, int64_t took_us); /* what a decode of k streams took just now */

/* gemma_rows.c; the loop only */
void fz_rows_open(fz_engine *e);                        /* finds the output matrix, and checks its logits */
void fz_rows_close(fz_engine *e);
void fz_rows_measure(fz_engine *e, uint32_t sizes);     /* how many rows pay, and for which of these our own kernel does */
int32_t fz_rows_allowed(const fz_engine *e, const uint32_t *mask); /* how many tokens a mask allows */
bool fz_rows_on_node(struct ggml_tensor *t, bool ask, void *engine); /* llama.cpp's callback */
int32_t fz_rows_decode(fz_engine *e);                   /* llama_decode of the batch, and what is computed here of its logits */
float *fz_rows_all(fz_engine *e, int32_t row, int32_t output); /* all logits of a row of the batch, which is the output-th with logits */
float *fz_rows_logits(fz_engine *e, int32_t output, const uint32_t *mask); /* of the allowed tokens; others are anything */

/* gemma_draft.c; the loop only, locked */
void fz_drafts_open(fz_engine *e);                      /* unlocked: how wide a batch may be */
void fz_draft_forget(fz_session *s);                    /* a generation begins */
void fz_draft_seen(fz_session *s, int32_t token);       /* what was said where there was a guess */
void fz_draft_watch(fz_engine *e);                      /* a batch is composed: which cells are in use */
void fz_draft_add(fz_engine *e, fz_session *s);         /* to a batch that has its tokens and no others */
bool fz_draft_drop(fz_engine *e);                       /* out of the batch; false: there is none */
void fz_draft_learn(fz_engine *e, int64_t took_us);     /* what the decode of this draft took */
void fz_draft_end(fz_engine *e);                        /* what was not said leaves the cache */

/* gemma_admit.c; the loop only, locked */
int64_t fz_retire(fz_engine *e);                        /* ends whose time is over; when the next one's is */
bool fz_admit(fz_engine *e);                            /* whether somebody could start */
bool fz_give_way(fz_engine *e);                         /* the cache is full; false: there is only one */
bool fz_is_paused(const fz_engine *e, const fz_session *s); /* its text is not taken */
int32_t fz_waiting(const fz_engine *e);                 /* how many wait for a slot or room */
int32_t fz_busy(const fz_engine *e);                     /* and how many work besides: what nobody reads does not */
void fz_want_mask(fz_engine *e, fz_session *s, int32_t token);

/* gemma_fair.c; locked */
fz_client *fz_client_of(fz_engine *e, uint32_t user, uint32_t id); /* a generation of it begins */
bool fz_has_credit(const fz_session *s);
bool fz_turn_is_over(const fz_session *s);
bool fz_is_due(const fz_session *s, const fz_session *other); /* it was passed so often that it goes before that one */
bool fz_is_whole(const fz_session *runs, const fz_session *waits); /* its turn is not interrupted for that one */
void fz_begin_turn(fz_session *s, int32_t again);       /* which needs so many tokens computed again */
void fz_charge(fz_engine *e);                           /* a decode was done */
void fz_charge_drafted(fz_session *s, int32_t n);       /* so many tokens of a draft were said beside the decode's own */
bool fz_yields(const fz_engine *e, const fz_session *runs, const fz_session *waits); /* its slot */
bool fz_goes_first(const fz_engine *e, const fz_session *a, const fz_session *b); /* of two that wait */
bool fz_make_room(fz_engine *e, const fz_client *newcomer); /* the queue is full; false: no client has so much more */

/* gemma_batch.c; the loop only, locked */
bool fz_awaits_force(const fz_session *s);
int32_t fz_pending(const fz_engine *e, const fz_session *s); /* how many of its tokens may be decoded now */
void fz_batch_put(fz_engine *e, int32_t token, int32_t pos, int32_t seq, bool output); /* a row more */
int32_t fz_compose(fz_engine *e);                       /* how many sessions are in the batch */

/* gemma_loop.c */
void *fz_loop(void *engine);
bool fz_wait_until(fz_engine *e, int64_t until_us);      /* locked: to be woken; false: the time is over */
void fz_poke(fz_engine *e);                             /* locked: the loop is to look again */
void fz_finish(fz_engine *e, fz_session *s, enum fz_reason reason, int32_t code, const char *text); /* locked */
void fz_note(fz_engine *e, fz_session *s);               /* locked: something for fz_ready */
void fz_session_free(fz_engine *e, fz_session *s);       /* locked */

#endif
