/*
 * The border between fazai's worker and llama.cpp: the only truth about it. The C compiler and cffi read
 * this same file (cffi leaves out the lines that begin with '#'), so it holds plain C11 declarations only.
 *
 * One thread, started by fz_open, owns llama.cpp's context. Every other function may be called from any thread.
 * A function that can fail returns a code below zero (enum fz_code) and, where it takes one, fills a text
 * buffer with a sentence. Nothing here calls exit() or asserts on what a caller gave it.
 */
#ifndef FAZAI_GEMMA_BRIDGE_H
#define FAZAI_GEMMA_BRIDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fz_engine fz_engine;

enum fz_code {
    FZ_OK = 0,
    FZ_E_INVALID = -1,      /* an argument is outside its limits */
    FZ_E_MEMORY = -2,       /* no memory */
    FZ_E_MODEL = -3,        /* the model cannot be loaded or used */
    FZ_E_UNKNOWN = -4,      /* there is no such session */
    FZ_E_BUSY = -5,         /* the session is generating */
    FZ_E_CONTEXT = -6,      /* longer than the context */
    FZ_E_OVERLOADED = -7,   /* as many wait, or as many sessions are open, as are allowed */
    FZ_E_CLOSED = -8,       /* the engine is being closed */
    FZ_E_DECODE = -9,       /* llama.cpp could not decode */
    FZ_E_MASK = -10         /* the owner of the masks failed, or did not answer in time */
};

enum fz_reason {
    FZ_RUNNING = 0,         /* not ended */
    FZ_EOS = 1,
    FZ_LENGTH = 2,
    FZ_STOP = 3,
    FZ_ABORTED = 4,
    FZ_TIMEOUT = 5,
    FZ_FAILED = 6           /* `code` and `message` say why */
};

/* When a session's tokens are decoded together with what it probably says next. */
enum fz_draft_mode {
    FZ_DRAFTS_EXACT = 0,    /* where nothing is rounded otherwise by it */
    FZ_DRAFTS_OFF = 1,
    FZ_DRAFTS_ALWAYS = 2    /* also in a cache so full that several threads divide the attention of a single token */
};

/* How clients share (SPEC.md, section 1). */
enum fz_share {
    FZ_TURN = 64,           /* tokens of a turn: then another's comes, when one waits */
    FZ_CREDIT = 512,        /* tokens that are computed for a client before others go first */
    FZ_PASSES = 16          /* so often one that waits or runs is passed, then it has its turn */
};

enum fz_way {
    FZ_W_ROWS = 0,          /* as it stands in the file: single rows can be multiplied */
    FZ_W_REPACKED = 1,      /* in a layout of llama.cpp's own, in memory of its own */
    FZ_W_NONE = 2           /* there is no kernel for a row */
};

typedef struct fz_options {
    int32_t n_ctx;              /* tokens that all conversations hold together; 0: the model's own, at most 8192 */
    int32_t n_threads;          /* 0: all cores */
    int32_t n_slots;            /* generations that run at once, 1 to 64 */
    int32_t n_sessions;         /* open sessions, 1 to 4096 */
    int32_t n_queue;            /* generations that wait, 0 to 4096 */
    int32_t n_gpu_layers;       /* 0: none, -1: all */
    int32_t calibrate;          /* 0: take batches as they come, do not measure */
    int32_t stall_ms;           /* how long a chunk of a long prompt may hold up running streams; 0: 80 */
    int32_t full_logits;        /* 1: all tokens' logits in every decode, also where a grammar allows few */
    int32_t drafts;             /* enum fz_draft_mode */
    int32_t out_limit;          /* bytes of text that wait for fz_take before its session pauses; 0: 16384 */
} fz_options;

typedef struct fz_params {
    int32_t max_tokens;         /* from 1 */
    float temperature;          /* 0: the likeliest token */
    int32_t top_k;              /* 0: off */
    float top_p;                /* 1: off */
    float min_p;                /* 0: off */
    float repeat_penalty;       /* 1: off; over the last 64 tokens */
    uint32_t seed;
    int32_t timeout_ms;         /* counted from fz_submit */
    int32_t constrained;        /* 1: tokens are taken from masks (fz_mask_next) */
    uint32_t user, client;      /* whose it is: slots are shared among users, then among the clients of each */
    int32_t n_stop;             /* 0 to 16 */
    const char *stop[16];       /* UTF-8, each of stop_len bytes */
    int32_t stop_len[16];
} fz_params;

/* What fz_take says of a generation, next to its text. Times are microseconds. */
typedef struct fz_progress {
    int32_t reason;             /* enum fz_reason */
    int32_t code;               /* enum fz_code, when reason is FZ_FAILED */
    int32_t more;               /* 1: more text waits than the buffer took */
    int32_t prompt_tokens;
    int32_t cached_tokens;
    int32_t completion_tokens;
    int32_t forced_tokens;      /* of completion_tokens: fed without sampling */
    int64_t queued_us;          /* from fz_submit to the first work */
    int64_t prefill_us;         /* from there to the first token */
    int64_t first_token_us;     /* from fz_submit */
    int64_t decode_us;          /* from the first token to the last */
    char message[160];
} fz_progress;

/* A session waits for its mask: the owner of the masks takes `token` (-1: it is the start) into its grammar,
 * says which tokens are forced now (fz_mask_ff), fills `bits` (one bit a token, 32 in a word, the lowest bit
 * first) and says so (fz_mask_ready). `bits` stays valid until then. */
typedef struct fz_mask_job {
    uint64_t session;
    uint64_t serial;
    int32_t token;
    int32_t n_words;
    uint32_t *bits;
} fz_mask_job;

/* What a decode over several sequences costs, and how many go together. */
typedef struct fz_costs {
    int32_t n;
    int64_t us[64];             /* us[k-1]: one llama_decode over k sequences, as measured at start and learnt since */
    int32_t plan[64];           /* plan[k-1]: the batch that is taken first when k sequences are ready */
} fz_costs;

typedef struct fz_stats {
    int32_t sessions;
    int32_t running;
    int32_t queued;
    int32_t n_ctx;
    int32_t n_ctx_train;
    int32_t n_vocab;
    int32_t n_threads;
    int32_t n_slots;
    int64_t decodes;            /* calls of llama_decode */
    int64_t decode_us;          /* and the time in them */
    int64_t tokens_prompt;
    int64_t tokens_cached;
    int64_t tokens_generated;
    int64_t tokens_forced;
    int64_t evictions;          /* conversations that lost their place in the KV cache */
    int64_t wait_mask_us;       /* time the loop waited for masks */
    int64_t model_bytes;
    int64_t kv_tokens;          /* tokens held by conversations and kept prefixes; shared ones count each time */
    int64_t parked_tokens;      /* of kept prefixes outside of the cache */
    int64_t parked_bytes;       /* their keys and values */
    int32_t chunk;              /* tokens of a prompt beside running streams */
    fz_costs costs;             /* of whole decodes */
    fz_costs short_costs;       /* of decodes that end before the output matrix; n is 0 when there are none */
    int64_t short_decodes;      /* of `decodes`: ended before the output matrix */
    int64_t whole_decodes;      /* of `decodes`: all logits came from a kernel of the bridge's own */
    int32_t whole_rows;         /* the most rows with logits for which a decode takes that kernel; 0: it never does */
    int64_t rows;               /* rows of the output matrix that were multiplied after those */
    int32_t rows_limit;         /* up to so many allowed tokens a decode ends early; 0: never, `rows_why` says why */
    char rows_why[96];
    int64_t drafted;            /* tokens that were tried */
    int64_t draft_accepted;     /* and said */
    int32_t drafts_limit;       /* up to so many at once; 0: none, `drafts_why` says why */
    char drafts_why[96];
    int32_t turn_tokens, credit_tokens, most_passes; /* enum fz_share */
} fz_stats;

/* The release that this was compiled against, and the one that is loaded; equal, or fz_open refuses. */
const char *fz_built_for(void);
const char *fz_loaded(void);

/* 1: llama.cpp can hold layers on a GPU, or what is like one, of this machine. */
int32_t fz_gpu(void);

/* The devices that llama.cpp knows here, a line with name and description each, with a tab between them. Returns
 * the length, also when `len` is smaller. */
int32_t fz_devices(char *text, int32_t len);

/* How llama.cpp multiplies by a matrix of this type and shape on this CPU (enum fz_way), or a code. */
int32_t fz_matrix_way(int32_t type, int64_t columns, int64_t rows);

/* Loads a model and starts the loop. `err` gets a sentence. Pairs with fz_close. */
int32_t fz_open(const char *path, const fz_options *options, fz_engine **engine, char *err, size_t err_len);

/* Refuses everything from now on, ends all generations and wakes those who wait in fz_mask_next. */
void fz_shutdown(fz_engine *engine);

/* Ends the loop and frees all. No other call may be under way, nor a mask job be held. NULL is allowed. */
void fz_close(fz_engine *engine);

/* Becomes readable when fz_ready has something; asyncio waits on it. */
int32_t fz_eventfd(const fz_engine *engine);

/* Gives back to the system what was freed; the C library keeps it otherwise. For after large work. */
void fz_memory_trim(void);

/* The text's tokens. Returns how many there are, also when `cap` is smaller (then `tokens` is undefined). */
int32_t fz_tokenize(const fz_engine *engine, const char *text, int32_t len, int32_t special, int32_t bos,
                    int32_t *tokens, int32_t cap);

/* A token's bytes (special tokens by name, when `special` is 1). Returns the length, also when `cap` is smaller. */
int32_t fz_piece(const fz_engine *engine, int32_t token, int32_t special, char *buf, int32_t cap);

/* 1: control token, or one of the user's that looks like one; 2: ends a generation; 3: both. */
int32_t fz_token_kind(const fz_engine *engine, int32_t token);

/* The vocabulary's tokens of control and of its user's own: how many there are, also when `cap` is smaller. */
int32_t fz_marks(const fz_engine *engine, int32_t *tokens, int32_t cap);

/* The token that begins a text, and the one that ends it; -1: the model has none. */
int32_t fz_token_bos(const fz_engine *engine);
int32_t fz_token_eos(const fz_engine *engine);

/* Addresses for a tokenizer that calls llama.cpp itself: the vocabulary and llama_tokenize. */
uintptr_t fz_vocab_address(const fz_engine *engine);
uintptr_t fz_tokenize_address(void);

/* Metadata of the model (general.name, tokenizer.chat_template…): its length, or -1. */
int32_t fz_meta(const fz_engine *engine, const char *key, char *buf, size_t cap);

int32_t fz_session_open(fz_engine *engine, uint64_t *session);

/* Aborts what runs and forgets the conversation. */
int32_t fz_session_close(fz_engine *engine, uint64_t session);

/* Adds tokens to the session's conversation and generates. Returns FZ_OK or why not, with a sentence. */
int32_t fz_submit(fz_engine *engine, uint64_t session, const int32_t *tokens, int32_t n_tokens,
                  const fz_params *params, char *err, size_t err_len);

/* Ends the session's generation; does nothing when there is none. */
int32_t fz_abort(fz_engine *engine, uint64_t session);

/* Sessions that have text or an end that fz_take did not see; resets the eventfd. Returns how many. */
int32_t fz_ready(fz_engine *engine, uint64_t *sessions, int32_t cap);

/* Text that is new (whole characters, valid UTF-8; the buffer has at least 16 bytes) and how far it is.
 * Returns the bytes taken. A reason other than FZ_RUNNING is the end, once `more` is 0. */
int32_t fz_take(fz_engine *engine, uint64_t session, char *buf, int32_t cap, fz_progress *progress);

/* How many tokens the session's conversation has, or FZ_E_UNKNOWN. */
int32_t fz_session_tokens(fz_engine *engine, uint64_t session);

/* Waits for a session that needs a mask. FZ_OK, 1 when the time was over, FZ_E_CLOSED when it is shut down. */
int32_t fz_mask_next(fz_engine *engine, int32_t timeout_ms, fz_mask_job *job);

/* Tokens that the grammar forces now (0 is allowed); `done`: it allows nothing after them. */
int32_t fz_mask_ff(fz_engine *engine, uint64_t session, uint64_t serial, const int32_t *tokens, int32_t n_tokens,
                   int32_t done);

/* The mask is there (code FZ_OK), or there will be none (a code below zero ends the generation with it). */
int32_t fz_mask_ready(fz_engine *engine, uint64_t session, uint64_t serial, int32_t code);

void fz_stats_get(fz_engine *engine, fz_stats *stats);

#ifdef __cplusplus
}
#endif

#endif
