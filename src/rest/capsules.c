/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The handlers of /v1/capsules but exec, and of /health. */

#include <string.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "rest/capsule-spec.h"
#include "rest/rest.h"
#include "shared/event.h"

#define DESTROY_USEC (90 * USEC_PER_SEC) /* wrennd answers when nothing is left */

/*
 * A create from its first byte on D-Bus until its answer. It outlives its request: when the client leaves
 * before the answer, the capsule is destroyed as soon as its id is known, since nobody else knows it (api.md
 * §2.2).
 */
typedef struct CreateOp {
        RestServer *server; /* weak */
        struct CreateOp *next, **link;
        RestRequest *request; /* weak; NULL: the client left */
        AuthKey *key;
        BusCall *call; /* CreateCapsule, then perhaps fetching the properties */
        sd_event_source *timer;
        char *id; /* once known */
} CreateOp;

static CreateOp* create_op_free(CreateOp *o) {
        if (!o)
                return NULL;

        if (o->link) {
                *o->link = o->next;
                if (o->next)
                        o->next->link = o->link;
        }
        if (o->request)
                o->request->operation = NULL;
        bus_call_free(o->call);
        event_source_free(o->timer);
        auth_key_unref(o->key);
        free(o->id);
        free(o);
        return NULL;
}
DEFINE_CLEANUP(CreateOp, create_op_free)

int rest_health_get(RestRequest *q, Fault *reterr) {
        rest_answer_json(q, 200, "{\"status\":\"ok\",\"version\":\"" WRENN_VERSION "\"}");
        return 0;
}

/* Destroys without waiting for the end. */
static void destroy_silently(RestServer *s, const AuthKey *key, const char *id) {
        sd_bus_message *m = NULL;
        int r;

        r = bus_client_message(s->bus, NULL, "DestroyCapsule", &m);
        if (r >= 0)
                r = sd_bus_message_append(m, "s", id);
        if (r >= 0)
                r = bus_message_open_options(m, key->team, key->id);
        if (r >= 0)
                r = bus_message_close_options(m);
        if (r >= 0)
                r = bus_client_send(s->bus, m, 0, NULL, NULL, NULL);
        sd_bus_message_unref(m);
        log_capsule(id, r < 0 ? LOG_WARNING : LOG_INFO, r,
                    "Destroying: the client left before its create was answered.");
}

/* The request is freed: the client left, or the answer is out. */
static void create_op_cancel(void *operation) {
        CreateOp *o = operation;

        o->request = NULL;
        if (!o->id)
                return; /* on_created() will see it */
        destroy_silently(o->server, o->key, o->id);
        (void) create_op_free(o);
}

static void create_op_fail(CreateOp *o, const Fault *fault) {
        RestRequest *q = o->request;

        (void) create_op_free(o);
        if (q)
                rest_answer_fault(q, fault);
}

/* Has wrennd told all that belongs to the state? What goes with it comes in a signal of its own behind. */
static bool view_is_complete(const CapsuleView *v) {
        if (streq_ptr(v->state, "error"))
                return !isempty(v->termination_reason);
        return capsule_view_is_running(v) && v->started_usec > 0;
}

static FaultCode view_fault_code(const CapsuleView *v) {
        FaultCode code = isempty(v->status_code) ? FAULT_NONE : fault_from_wire_name(v->status_code);

        if (streq_ptr(v->termination_reason, "disk-full"))
                return FAULT_NO_SPACE;
        return code > FAULT_NONE && code != FAULT_INTERNAL ? code : FAULT_AGENT;
}

/* Answers when the state is final or the time is over; else more is to come. */
static void create_op_check(CreateOp *o, CapsuleView *v, bool timeout) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        RestRequest *q = o->request;

        if (!v || streq_ptr(v->state, "stopped"))
                (void) fault_set(&fault, FAULT_AGENT, "The capsule was destroyed while it started.");
        else if (!timeout && !view_is_complete(v))
                return;
        else if (streq_ptr(v->state, "error"))
                (void) fault_set(&fault, view_fault_code(v), "%s",
                                 isempty(v->status_message) ? "The capsule failed to start."
                                                            : v->status_message);

        if (fault_is_set(&fault)) {
                create_op_fail(o, &fault);
                return;
        }
        (void) create_op_free(o);
        rest_answer_json(q, 201, capsule_view_json(v));
}

void rest_creates_notify(RestServer *s, const char *id, CapsuleView *view) {
        for (CreateOp *o = s->creates, *next; o; o = next) {
                next = o->next;
                if (o->id && !o->call && streq(o->id, id))
                        create_op_check(o, view, false);
        }
}

void rest_creates_free(RestServer *s) {
        while (s->creates)
                (void) create_op_free(s->creates);
}

static int on_create_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        CreateOp *o = userdata;
        CapsuleView *v = o->id ? bus_client_capsule(o->server->bus, o->id) : NULL;

        if (!o->request)
                return 0;
        if (v) {
                create_op_check(o, v, true);
                return 0;
        }

        /* wrennd has not even made the record: better an error than a capsule without a name */
        (void) fault_set(&fault, FAULT_TIMEOUT, "The daemon did not answer in time.");
        o->request->operation = NULL;
        rest_answer_fault(TAKE_PTR(o->request), &fault);
        if (o->id) {
                destroy_silently(o->server, o->key, o->id);
                (void) create_op_free(o);
        }
        return 0;
}

static void on_create_fetched(BusCall *call, int r, sd_bus_message *reply, const Fault *fault,
                              void *userdata) {
        CreateOp *o = userdata;

        o->call = bus_call_free(o->call);
        if (r < 0)
                create_op_fail(o, fault);
        else
                create_op_check(o, bus_client_capsule(o->server->bus, o->id), false);
}

static void on_created(BusCall *call, int r, sd_bus_message *reply, const Fault *fault, void *userdata) {
        _cleanup_(fault_done) Fault malformed = FAULT_NULL;
        CreateOp *o = userdata;
        const char *id, *path;
        CapsuleView *v;

        o->call = bus_call_free(o->call);
        if (r < 0) {
                create_op_fail(o, fault);
                return;
        }

        r = sd_bus_message_read(reply, "so", &id, &path);
        if (r >= 0)
                r = free_and_strdup(&o->id, id);
        if (r < 0) {
                (void) fault_set_errno(&malformed, r, "Failed to read the answer of the daemon");
                create_op_fail(o, &malformed);
                return;
        }
        if (!o->request) {
                destroy_silently(o->server, o->key, o->id);
                (void) create_op_free(o);
                return;
        }

        v = bus_client_capsule(o->server->bus, o->id);
        if (v) {
                create_op_check(o, v, false);
                return;
        }
        r = bus_client_fetch(o->server->bus, o->id, on_create_fetched, o, &o->call);
        if (r < 0) {
                (void) fault_set_errno(&malformed, r, "Failed to read the new capsule");
                create_op_fail(o, &malformed);
        }
}

static int append_create(sd_bus_message *m, const CapsuleSpec *spec, const AuthKey *key) {
        int r;

        r = sd_bus_message_append(m, "s", spec->template ?: strempty(key->default_template));
        if (r >= 0)
                r = bus_message_open_options(m, key->team, key->id);
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}", "NoWait", "b", 1);
        if (r >= 0 && spec->vcpus > 0)
                r = sd_bus_message_append(m, "{sv}", "VCPUs", "u", spec->vcpus);
        if (r >= 0 && spec->memory_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "MemoryBytes", "t", spec->memory_bytes);
        if (r >= 0 && spec->disk_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "DiskBytes", "t", spec->disk_bytes);
        if (r >= 0 && spec->timeout_usec > 0)
                r = sd_bus_message_append(m, "{sv}", "TimeoutUSec", "t", spec->timeout_usec);
        if (r >= 0 && spec->metadata)
                r = capsule_spec_append_labels(spec, m);
        return r < 0 ? r : bus_message_close_options(m);
}

static int create_op_start(CreateOp *o, const CapsuleSpec *spec) {
        sd_bus_message *m = NULL;
        int r;

        r = event_timer(o->server->event, &o->timer, CREATE_ANSWER_USEC, PRIORITY_CLIENT, on_create_timeout,
                        o, "create");
        if (r < 0)
                return r;
        r = bus_client_message(o->server->bus, NULL, "CreateCapsule", &m);
        if (r >= 0)
                r = append_create(m, spec, o->key);
        if (r >= 0)
                r = bus_client_send(o->server->bus, m, 0, on_created, o, &o->call);
        sd_bus_message_unref(m);
        return r;
}

int rest_capsules_create(RestRequest *q, Fault *reterr) {
        _cleanup_(capsule_spec_done) CapsuleSpec spec = {};
        _cleanup_(create_op_freep) CreateOp *o = NULL;
        _cleanup_json_ json_t *body = NULL;
        RestServer *s = q->server;
        int r;

        r = rest_request_json(q, &body, reterr);
        if (r >= 0)
                r = capsule_spec_from_json(body, &spec, reterr);
        if (r < 0)
                return r;

        o = malloc(sizeof(CreateOp));
        if (!o)
                return fault_set_errno(reterr, -ENOMEM, "Failed to create a capsule");
        *o = (CreateOp) { .server = s, .key = auth_key_ref(q->key) };

        r = create_op_start(o, &spec);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to ask for a capsule");

        o->next = s->creates;
        o->link = &s->creates;
        if (o->next)
                o->next->link = &o->next;
        s->creates = o;
        o->request = q;
        rest_request_wait(q, TAKE_PTR(o), create_op_cancel);
        return 0;
}

static int compare_newest_first(const void *a, const void *b) {
        const CapsuleView *x = *(CapsuleView *const *) a, *y = *(CapsuleView *const *) b;

        if (x->created_usec != y->created_usec)
                return x->created_usec < y->created_usec ? 1 : -1;
        return strcmp(x->id, y->id);
}

/* "[a,b]" of prepared objects; NULL on out of memory. */
static char* join_views(CapsuleView **views, size_t n) {
        char *text, *p;
        size_t size = 3;

        for (size_t i = 0; i < n; i++) {
                const char *json = capsule_view_json(views[i]);

                if (!json)
                        return NULL;
                size += strlen(json) + 1;
        }

        text = p = malloc(size);
        if (!text)
                return NULL;
        *p++ = '[';
        for (size_t i = 0; i < n; i++) {
                if (i > 0)
                        *p++ = ',';
                p = stpcpy(p, views[i]->json);
        }
        memcpy(p, "]", 2);
        return text;
}

int rest_capsules_list(RestRequest *q, Fault *reterr) {
        const Hashmap *capsules = bus_client_capsules(q->server->bus);
        _cleanup_free_ CapsuleView **views = NULL;
        _cleanup_free_ char *json = NULL;
        CapsuleView *v;
        size_t n = 0;

        views = calloc(hashmap_size(capsules) + 1, sizeof(CapsuleView *));
        if (!views)
                return fault_set_errno(reterr, -ENOMEM, "Failed to list the capsules");

        HASHMAP_FOREACH(v, capsules)
                if (streq_ptr(v->team, q->key->team) && !capsule_view_is_ended(v))
                        views[n++] = v;
        qsort(views, n, sizeof(CapsuleView *), compare_newest_first);

        json = join_views(views, n);
        if (!json)
                return fault_set_errno(reterr, -ENOMEM, "Failed to list the capsules");
        rest_answer_json(q, 200, json);
        return 0;
}

int rest_capsule_get(RestRequest *q, Fault *reterr) {
        CapsuleView *v;
        int r;

        r = rest_request_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        rest_answer_json(q, 200, capsule_view_json(v));
        return 0;
}

/* DELETE and ping: one D-Bus call, then 204. */
typedef struct CallOp {
        RestRequest *request; /* weak */
        BusCall *call;
        char *id;
        bool destroy;
} CallOp;

static void call_op_free(void *operation) {
        CallOp *o = operation;

        bus_call_free(o->call); /* a destroy that was sent goes on */
        free(o->id);
        free(o);
}

static void on_called(BusCall *call, int r, sd_bus_message *reply, const Fault *fault, void *userdata) {
        CallOp *o = userdata;
        RestRequest *q = o->request;
        BusClient *bus = q->server->bus;
        CapsuleView *v;

        if (r < 0) {
                rest_answer_fault(q, fault);
                return;
        }

        v = bus_client_capsule(bus, o->id);
        if (o->destroy && v && !streq_ptr(v->state, "stopped"))
                (void) capsule_view_set_state(v, "stopped"); /* the signal is on its way */
        rest_answer_empty(q, 204);
}

static int call_op_start(RestRequest *q, const CapsuleView *v, const char *member, bool destroy,
                         Fault *reterr) {
        sd_bus_message *m = NULL;
        CallOp *o;
        int r;

        o = malloc(sizeof(CallOp));
        if (!o)
                return fault_set_errno(reterr, -ENOMEM, "Failed to call the daemon");
        *o = (CallOp) { .request = q, .destroy = destroy, .id = strdup(v->id) };

        r = o->id ? bus_client_message(q->server->bus, NULL, member, &m) : -ENOMEM;
        if (r >= 0)
                r = sd_bus_message_append(m, "s", v->id);
        if (r >= 0)
                r = bus_message_open_options(m, q->key->team, q->key->id);
        if (r >= 0)
                r = bus_message_close_options(m);
        if (r >= 0)
                r = bus_client_send(q->server->bus, m, destroy ? DESTROY_USEC : 0, on_called, o, &o->call);
        sd_bus_message_unref(m);
        if (r < 0) {
                call_op_free(o);
                return fault_set_errno(reterr, r, "Failed to call the daemon");
        }

        rest_request_wait(q, o, call_op_free);
        return 0;
}

int rest_capsule_delete(RestRequest *q, Fault *reterr) {
        CapsuleView *v;
        int r;

        r = rest_request_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        if (streq_ptr(v->state, "stopped")) {
                rest_answer_empty(q, 204);
                return 0;
        }
        return call_op_start(q, v, "DestroyCapsule", /* destroy= */ true, reterr);
}

int rest_capsule_ping(RestRequest *q, Fault *reterr) {
        CapsuleView *v;
        int r;

        r = rest_request_running_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        return call_op_start(q, v, "PingCapsule", /* destroy= */ false, reterr);
}
