/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "basic/hashmap.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/host/polkit.h"
#include "shared/event.h"

#define SENDERS_MAX              1024U
#define UID_TIMEOUT_USEC         (10 * USEC_PER_SEC)
#define CHECK_TIMEOUT_USEC       (25 * USEC_PER_SEC)
#define INTERACTIVE_TIMEOUT_USEC (120 * USEC_PER_SEC)

#define POLKIT_NAME      "org.freedesktop.PolicyKit1"
#define POLKIT_PATH      "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE "org.freedesktop.PolicyKit1.Authority"
#define CANCELLATION_LEN 32U

typedef struct Sender {
        uid_t uid;
        char name[];
} Sender;

/* One message that waits for an answer. Lives until its second dispatch has taken it, or until the loop is
 * idle. */
typedef struct Query {
        Polkit *polkit;
        struct Query *next;
        sd_bus_message *message;
        sd_bus_slot *slot; /* the open call; NULL: answered */
        sd_bus_slot *left; /* tells that the caller left, while polkit is asked */
        uint64_t number;   /* of the question, by which it is cancelled */
        uid_t uid;         /* UID_UNKNOWN while that is what is asked */
        char *question;    /* action and details; NULL: only the uid was asked */
        int result;        /* 1, or a negative errno with fault */
        Fault fault;
} Query;

struct Polkit {
        sd_bus *bus;
        uid_t trusted_uid;
        Hashmap *senders; /* unique name -> Sender */
        Query *queries;
        uint64_t n_asked;
        sd_event_source *collector;
};

int polkit_new(sd_bus *bus, uid_t trusted_uid, Polkit **ret) {
        _cleanup_(polkit_freep) Polkit *p = calloc(1, sizeof(Polkit));

        if (!p)
                return -ENOMEM;

        p->bus = sd_bus_ref(bus);
        p->trusted_uid = trusted_uid;
        p->senders = hashmap_new();
        if (!p->senders)
                return -ENOMEM;

        *ret = TAKE_PTR(p);
        return 0;
}

static void query_free(Query *q) {
        for (Query **i = &q->polkit->queries; *i; i = &(*i)->next)
                if (*i == q) {
                        *i = q->next;
                        break;
                }

        sd_bus_slot_unref(q->slot);
        sd_bus_slot_unref(q->left);
        sd_bus_message_unref(q->message);
        fault_done(&q->fault);
        free(q->question);
        free(q);
}

static void forget_senders(Polkit *p) {
        Sender *s;

        while ((s = hashmap_first(p->senders))) {
                (void) hashmap_remove(p->senders, s->name);
                free(s);
        }
}

Polkit* polkit_free(Polkit *p) {
        if (!p)
                return NULL;

        p->collector = event_source_free(p->collector);
        while (p->queries)
                query_free(p->queries);
        forget_senders(p);
        hashmap_free(p->senders);
        sd_bus_unref(p->bus);
        free(p);
        return NULL;
}

uid_t polkit_trusted_uid(const Polkit *p) {
        return p->trusted_uid;
}

unsigned polkit_n_pending(const Polkit *p) {
        unsigned n = 0;

        for (const Query *q = p->queries; q; q = q->next)
                n++;
        return n;
}

static Query* find_query(Polkit *p, sd_bus_message *m) {
        for (Query *q = p->queries; q; q = q->next)
                if (q->message == m)
                        return q;
        return NULL;
}

static bool sender_is_known(Polkit *p, const char *name, uid_t *ret) {
        Sender *s = hashmap_get(p->senders, name);

        if (s)
                *ret = s->uid;
        return s;
}

static void remember_sender(Polkit *p, const char *name, uid_t uid) {
        size_t n = strlen(name) + 1;
        Sender *s;

        if (hashmap_size(p->senders) >= SENDERS_MAX)
                forget_senders(p);

        s = malloc(sizeof(Sender) + n);
        if (!s)
                return; /* asked again next time */
        s->uid = uid;
        memcpy(s->name, name, n);
        if (hashmap_put(p->senders, s->name, s) < 0)
                free(s);
}

/* Answers that nobody fetched: the object had gone, or the handler refused for another reason. */
static int on_idle(sd_event_source *source, void *userdata) {
        Polkit *p = userdata;

        for (Query *q = p->queries, *next; q; q = next) {
                next = q->next;
                if (!q->slot)
                        query_free(q);
        }
        return 0;
}

/* The answer is in q: hands the message to its handler again. */
static void dispatch_again(Query *q) {
        Polkit *p = q->polkit;
        int r;

        q->slot = sd_bus_slot_unref(q->slot);
        q->left = sd_bus_slot_unref(q->left);

        r = sd_bus_message_rewind(q->message, true);
        if (r >= 0)
                r = sd_bus_enqueue_for_read(p->bus, q->message);
        if (r < 0) {
                (void) sd_bus_reply_method_errno(q->message, r, NULL);
                query_free(q);
                return;
        }

        r = event_defer(sd_bus_get_event(p->bus), &p->collector, PRIORITY_GC, on_idle, p);
        if (r < 0)
                (void) log_warning_errno(
                                r, "Failed to plan the clean-up of authorization answers, ignoring: %m");
}

static int on_uid(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        Query *q = userdata;
        uint32_t uid;

        if (sd_bus_message_is_method_error(reply, NULL) || sd_bus_message_read(reply, "u", &uid) < 0)
                q->result = fault_set(&q->fault, FAULT_ACCESS_DENIED, "The caller is unknown to the bus.");
        else {
                q->result = 1;
                q->uid = uid;
                remember_sender(q->polkit, sd_bus_message_get_sender(q->message), uid);
        }

        dispatch_again(q);
        return 1;
}

static int check_limits(Polkit *p, uid_t uid, Fault *reterr) {
        unsigned n_all = 0, n_uid = 0;

        for (const Query *q = p->queries; q; q = q->next) {
                if (!q->slot)
                        continue; /* answered, on its way */
                n_all++;
                if (uid != UID_UNKNOWN && q->uid == uid)
                        n_uid++;
        }

        if (n_all >= BUS_PENDING_MAX || n_uid >= BUS_PENDING_PER_UID_MAX)
                return fault_set(reterr, FAULT_NO_CAPACITY,
                                 "Too many calls are waiting for authorization; try again later.");
        return 0;
}

/* A new query, linked, without an open call yet. */
static int query_new(Polkit *p, sd_bus_message *m, uid_t uid, Query **ret, Fault *reterr) {
        Query *q;
        int r;

        r = check_limits(p, uid, reterr);
        if (r < 0)
                return r;

        q = malloc(sizeof(Query));
        if (!q)
                return fault_set_errno(reterr, ENOMEM, "Failed to ask for authorization");

        *q = (Query) { .polkit = p, .next = p->queries, .message = sd_bus_message_ref(m), .uid = uid };
        p->queries = q;
        *ret = q;
        return 0;
}

int polkit_sender_uid(Polkit *p, sd_bus_message *m, uid_t *ret, Fault *reterr) {
        const char *sender = sd_bus_message_get_sender(m);
        Query *q;
        int r;

        if (!sender)
                return fault_set(reterr, FAULT_ACCESS_DENIED, "The caller has no name on the bus.");
        if (sender_is_known(p, sender, ret))
                return 1;

        q = find_query(p, m);
        if (q && q->result < 0)
                return fault_set(reterr, q->fault.code, "%s", q->fault.message);
        if (q) {
                *ret = q->uid;
                return 1;
        }

        r = query_new(p, m, UID_UNKNOWN, &q, reterr);
        if (r < 0)
                return r;

        r = sd_bus_call_method_async(p->bus, &q->slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus", "GetConnectionUnixUser", on_uid, q, "s",
                                     sender);
        if (r < 0) {
                query_free(q);
                return fault_set_errno(reterr, r, "Failed to ask the bus who calls");
        }
        return 0;
}

static int on_check(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        int authorized = false, challenge = false, r;
        Query *q = userdata;

        if (sd_bus_message_is_method_error(reply, NULL)) {
                r = sd_bus_message_get_errno(reply);
                if (r == ETIMEDOUT)
                        q->result = fault_set(&q->fault, FAULT_TIMEOUT, "polkit did not answer in time.");
                else
                        q->result = fault_set(&q->fault, FAULT_ACCESS_DENIED,
                                              "Only root may do that while polkit cannot be asked (%s).",
                                              strempty(sd_bus_message_get_error(reply)->message));
        } else {
                r = sd_bus_message_enter_container(reply, 'r', "bba{ss}");
                if (r >= 0)
                        r = sd_bus_message_read(reply, "bb", &authorized, &challenge);
                if (r >= 0 && authorized)
                        q->result = 1;
                else
                        q->result = fault_set(&q->fault, FAULT_ACCESS_DENIED,
                                              challenge ? "Interactive authentication is required."
                                                        : "Not permitted by the system's policy.");
        }

        dispatch_again(q);
        return 1;
}

static char* make_question(const char *action, const char *const *details) {
        char *q = strdup(action);

        for (; q && details && details[0]; details += 2) {
                char *longer;

                if (isempty(details[1]))
                        continue;
                longer = strjoin(q, "\n", details[0], "=", details[1]);
                free(q);
                q = longer;
        }
        return q;
}

static int append_details(sd_bus_message *c, const char *const *details) {
        int r;

        r = sd_bus_message_open_container(c, 'a', "{ss}");
        for (; r >= 0 && details && details[0]; details += 2)
                if (!isempty(details[1]))
                        r = sd_bus_message_append(c, "{ss}", details[0], details[1]);
        return r < 0 ? r : sd_bus_message_close_container(c);
}

static void format_cancellation(const Query *q, char ret[static CANCELLATION_LEN]) {
        (void) snprintf(ret, CANCELLATION_LEN, "wrenn-%" PRIu64, q->number);
}

/* A dialog that nobody waits for would stay on somebody's screen. */
static int on_caller_left(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name, *old_owner, *new_owner;
        char cancellation[CANCELLATION_LEN];
        Query *q = userdata;
        int r;

        if (sd_bus_message_read(m, "sss", &name, &old_owner, &new_owner) < 0 || !isempty(new_owner))
                return 0;

        format_cancellation(q, cancellation);
        r = sd_bus_call_method_async(q->polkit->bus, NULL, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                     "CancelCheckAuthorization", NULL, NULL, "s", cancellation);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to cancel a question to polkit, ignoring: %m");
        query_free(q);
        return 0;
}

static int watch_caller(Polkit *p, Query *q) {
        _cleanup_free_ char *match = strjoin(
                        "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                        "member='NameOwnerChanged',arg0='",
                        sd_bus_message_get_sender(q->message), "'");

        return match ? sd_bus_add_match_async(p->bus, &q->left, match, on_caller_left, NULL, q) : -ENOMEM;
}

static int send_check(Polkit *p, Query *q, const char *action, const char *const *details) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *c = NULL;
        int interactive = sd_bus_message_get_allow_interactive_authorization(q->message) > 0;
        char cancellation[CANCELLATION_LEN];
        int r;

        q->number = ++p->n_asked;
        format_cancellation(q, cancellation);
        r = sd_bus_message_new_method_call(p->bus, &c, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                           "CheckAuthorization");
        if (r >= 0)
                r = sd_bus_message_append(c, "(sa{sv})s", "system-bus-name", 1, "name", "s",
                                          sd_bus_message_get_sender(q->message), action);
        if (r >= 0)
                r = append_details(c, details);
        if (r >= 0)
                r = sd_bus_message_append(c, "us", (uint32_t) interactive, cancellation);
        if (r >= 0)
                r = watch_caller(p, q);
        if (r >= 0)
                r = sd_bus_call_async(p->bus, &q->slot, c, on_check, q,
                                      interactive ? INTERACTIVE_TIMEOUT_USEC : CHECK_TIMEOUT_USEC);
        return r;
}

/* The second dispatch of m: takes the answer out. The question must be the one that was asked. */
static int take_answer(Query *q, const char *question, Fault *reterr) {
        int r = q->result;

        if (!streq_ptr(q->question, question))
                r = fault_set(reterr, FAULT_ACCESS_DENIED,
                              "The object changed while authorization was asked for.");
        else if (r < 0)
                r = fault_set(reterr, q->fault.code, "%s", q->fault.message);

        query_free(q);
        return r;
}

int polkit_authorize(Polkit *p, sd_bus_message *m, const char *action, const char *const *details,
                     uid_t *ret_uid, Fault *reterr) {
        _cleanup_free_ char *question = NULL;
        uid_t uid;
        Query *q;
        int r;

        r = polkit_sender_uid(p, m, &uid, reterr);
        if (r <= 0)
                return r;
        if (ret_uid)
                *ret_uid = uid;

        q = find_query(p, m);
        if (q && !q->question) {
                query_free(q); /* it asked for the uid */
                q = NULL;
        }
        if (uid == 0 || (p->trusted_uid != UID_UNKNOWN && uid == p->trusted_uid))
                return 1;

        question = make_question(action, details);
        if (!question)
                return fault_set_errno(reterr, ENOMEM, "Failed to ask polkit");
        if (q)
                return take_answer(q, question, reterr);

        r = query_new(p, m, uid, &q, reterr);
        if (r < 0)
                return r;

        q->question = TAKE_PTR(question);
        r = send_check(p, q, action, details);
        if (r < 0) {
                query_free(q);
                return fault_set_errno(reterr, r, "Failed to ask polkit");
        }
        return 0;
}
