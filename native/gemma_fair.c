/*
 * Whose turn it is. A client is a process, and its user is whose process it is. Slots are shared among the users whose
 * generations wait or run, then among the clients of each; who had a turn lets the next one go. What is computed for a
 * client uses up its credit: as long as one with credit has something to decode, the others wait, and get credit back
 * with each decode that passes them. So nobody is passed by more decodes than the credit is large.
 */
#include <string.h>

#include "gemma_internal.h"

/* Eighths of a token: one that was only read (of a prompt, or forced) costs an eighth of one that was sampled. */
enum { UNIT = 8, FULL = FZ_CREDIT * UNIT };
enum { REST_US = 10000000 }; /* a client that rested for so long is as good as a new one */

/* Marks the clients of all generations that run or wait. */
static void mark_clients(fz_engine *e) {
    for (int32_t i = 0; i < e->n_clients; i++) e->clients[i].marked = false;
    for (int32_t i = 0; i < e->n_running; i++) e->running[i]->client->marked = true;
    for (int32_t i = 0; i < e->n_queued; i++) e->queue[i]->client->marked = true;
}

fz_client *fz_client_of(fz_engine *e, uint32_t user, uint32_t id) {
    int64_t now = fz_now_us();
    fz_client *found = NULL;
    mark_clients(e);
    for (int32_t i = 0; i < e->n_clients; i++) {
        fz_client *c = &e->clients[i];
        if (c->used_us && c->user == user && c->id == id) {
            found = c;
            break;
        }
        if (!c->marked && (!found || c->used_us < found->used_us)) found = c;
    }
    bool known = found->used_us && found->user == user && found->id == id;
    if (!known || (!found->marked && now - found->used_us >= REST_US)) found->credit = FULL;
    found->user = user;
    found->id = id;
    found->used_us = now;
    return found;
}

bool fz_has_credit(const fz_session *s) { return s->due == FZ_DUE_ALL || s->client->credit >= 0; }

bool fz_turn_is_over(const fz_session *s) { return s->turn >= s->turn_most; }

/* By its own client's it is passed before these, and before no other client. */
bool fz_is_due(const fz_session *s, const fz_session *other) {
    return s->passed + (s->client == other->client ? s->passed_own : 0) >= FZ_PASSES;
}

bool fz_is_whole(const fz_session *runs, const fz_session *waits) {
    return runs->due == FZ_DUE_ALL || (runs->due == FZ_DUE_OWN && runs->client == waits->client);
}

void fz_begin_turn(fz_session *s, int32_t again) {
    s->turn = 0;
    s->turn_most = FZ_TURN + again / 4;
    s->due = s->passed >= FZ_PASSES ? FZ_DUE_ALL : fz_is_due(s, s) ? FZ_DUE_OWN : FZ_DUE_NOT;
}

static void go_on(fz_session *s, int32_t n) {
    s->turn += n;
    if (!fz_turn_is_over(s)) return;
    s->due = FZ_DUE_NOT;
    s->passed = s->passed_own = 0;
}

/* After a decode: who took part pays, who did not is paid. One that is being computed for the first token of its turn is
 * not in its turn yet; one that is passed is, for it holds a slot. */
void fz_charge(fz_engine *e) {
    for (int32_t i = 0; i < e->n_clients; i++) e->clients[i].marked = false;
    for (int32_t i = 0; i < e->n_running; i++) {
        fz_session *s = e->running[i];
        if (s->row >= 0 || (!s->in_batch && !s->due)) go_on(s, 1);
        if (!s->in_batch) continue;
        s->client->marked = true;
        s->client->credit -= s->in_batch + (s->row >= 0 ? UNIT - 1 : 0);
    }
    for (int32_t i = 0; i < e->n_clients; i++) {
        fz_client *c = &e->clients[i];
        if (!c->marked) c->credit += UNIT;
        c->credit = c->credit > FULL ? FULL : c->credit < -FULL ? -FULL : c->credit;
    }
}

void fz_charge_drafted(fz_session *s, int32_t n) {
    go_on(s, n);
    s->client->credit -= n * UNIT;
    if (s->client->credit < -FULL) s->client->credit = -FULL;
}

/* How many of these sessions are the client's, or its user's. */
static int32_t count(fz_session *const *list, int32_t n, const fz_client *c, bool user) {
    int32_t found = 0;
    for (int32_t i = 0; i < n; i++) found += user ? list[i]->client->user == c->user : list[i]->client == c;
    return found;
}

/* How many slots more the user of `a` has than that of `b`; of one user: the client; of one client: 0. */
static int32_t more_slots(const fz_engine *e, const fz_client *a, const fz_client *b) {
    bool user = a->user != b->user;
    return count(e->running, e->n_running, a, user) - count(e->running, e->n_running, b, user);
}

/* Whether it could go on as if it had not waited. */
static bool is_cached(const fz_engine *e, const fz_session *s) {
    return s->lane >= 0 && s->n_tok - e->lanes[s->lane].n <= FZ_TURN;
}

bool fz_yields(const fz_engine *e, const fz_session *runs, const fz_session *waits) {
    bool over = fz_turn_is_over(runs);
    if (fz_is_whole(runs, waits)) return false;
    if (over && fz_is_due(waits, runs)) return true;
    if (!fz_has_credit(waits) && fz_has_credit(runs)) return false;
    if (runs->client == waits->client) return over && (!waits->begun || is_cached(e, waits));
    int32_t more = more_slots(e, runs->client, waits->client);
    return more >= 2 || (more == 1 && (over || fz_has_credit(waits) > fz_has_credit(runs)));
}

bool fz_goes_first(const fz_engine *e, const fz_session *a, const fz_session *b) {
    bool due_a = fz_is_due(a, b), due_b = fz_is_due(b, a);
    if (due_a != due_b) return due_a;
    if (fz_has_credit(a) != fz_has_credit(b)) return fz_has_credit(a);
    int32_t more = more_slots(e, a->client, b->client);
    return more ? more < 0 : a->ticket < b->ticket;
}

/* How many generations more the user of `a` has under way than that of `b`; of one user: the client. */
static int32_t more_of(const fz_engine *e, const fz_client *a, const fz_client *b) {
    bool user = a->user != b->user;
    return count(e->running, e->n_running, a, user) + count(e->queue, e->n_queued, a, user) -
           count(e->running, e->n_running, b, user) - count(e->queue, e->n_queued, b, user);
}

bool fz_make_room(fz_engine *e, const fz_client *newcomer) {
    const fz_client *most = NULL;
    fz_session *latest = NULL;
    for (int32_t i = 0; i < e->n_queued; i++) {
        const fz_client *c = e->queue[i]->client;
        if (more_of(e, c, newcomer) >= 2 && (!most || more_of(e, c, most) > 0)) most = c;
    }
    for (int32_t i = 0; i < e->n_queued && most; i++) {
        fz_session *s = e->queue[i];
        bool is_of_most = s->client == most || more_of(e, s->client, most) == 0;
        if (!s->begun && is_of_most && (!latest || s->ticket > latest->ticket)) latest = s;
    }
    if (latest)
        fz_finish(e, latest, FZ_FAILED, FZ_E_OVERLOADED, "its place in the queue went to a client that has fewer requests under way");
    return most != NULL;
}
