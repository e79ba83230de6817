/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The capsule methods and signals of the Manager interface. */

#include <string.h>

#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-capsule.h"
#include "daemon/bus/bus-server.h"
#include "daemon/host/users.h"

#define LIST_ALL UINT64_C(1) /* also stopped and failed ones */

int bus_capsule_authorize(BusServer *s, sd_bus_message *m, const Capsule *c, const char *verb,
                          BusCaller *caller, sd_bus_error *error) {
        _cleanup_free_ char *owner = user_name(c->spec.owner_uid);
        const char *const details[] = { "capsule", c->id,  "name",       c->spec.name, "owner",
                                        owner,     "team", c->spec.team, "template",   c->spec.template,
                                        "verb",    verb,   NULL };
        int r;

        r = bus_authorize(s, m, verb, details, caller, error);
        if (r > 0 && caller->team && !streq(caller->team, c->spec.team))
                return sd_bus_error_setf(error, fault_bus_name(FAULT_NOT_FOUND), "No capsule '%s'.", c->id);
        return r;
}

BusServer* bus_capsule_server(const Capsule *c) {
        return c->manager->events_userdata;
}

int bus_capsule_allow(sd_bus_message *m, Capsule *c, const char *verb, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};

        return bus_capsule_authorize(bus_capsule_server(c), m, c, verb, &caller, error);
}

int bus_capsule_wait(sd_bus_message *m, int r, const Fault *fault, sd_bus_error *error) {
        if (r < 0)
                return bus_error_from_fault(error, r, fault);
        sd_bus_message_ref(m); /* the answer's */
        return 1;
}

void bus_capsule_done(Capsule *c, int r, const Fault *fault, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = userdata;

        if (r < 0)
                bus_reply_fault(m, r, fault);
        else
                (void) sd_bus_reply_method_return(m, NULL);
}

int bus_list_new(sd_bus_message *call, const char *element, BusList **ret) {
        _cleanup_(bus_list_freep) BusList *l = calloc(1, sizeof(BusList));
        int r;

        if (!l)
                return -ENOMEM;
        l->call = sd_bus_message_ref(call);
        r = sd_bus_message_new_method_return(call, &l->reply);
        if (r >= 0)
                r = sd_bus_message_open_container(l->reply, 'a', element);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(l);
        return 0;
}

BusList* bus_list_free(BusList *l) {
        if (!l)
                return NULL;
        sd_bus_message_unref(l->reply);
        sd_bus_message_unref(l->call);
        free(l);
        return NULL;
}

void bus_list_done(Capsule *c, int r, const Fault *fault, void *userdata) {
        _cleanup_(bus_list_freep) BusList *l = userdata;

        if (r >= 0)
                r = sd_bus_message_close_container(l->reply);
        if (r >= 0)
                r = sd_bus_message_send(l->reply);
        if (r < 0)
                bus_reply_fault(l->call, r, fault);
}

/* --- create ---------------------------------------------------------------------------------- */

typedef struct CreateRequest {
        CapsuleSpec spec;
        bool no_wait;
        BusCaller caller;
} CreateRequest;

static void create_request_done(CreateRequest *q) {
        capsule_spec_done(&q->spec);
        bus_caller_done(&q->caller);
}

static int reply_created(sd_bus_message *m, const Capsule *c) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        return r < 0 ? r : sd_bus_reply_method_return(m, "so", c->id, path);
}

static void on_created(Capsule *c, int r, const Fault *fault, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = userdata;

        if (r < 0)
                bus_reply_fault(m, r, fault);
        else
                (void) reply_created(m, c);
}

static int read_create(sd_bus_message *m, CreateRequest *q, Fault *reterr) {
        static const BusOption options[] = {
                { "Name", 's', offsetof(CreateRequest, spec.name) },
                { "VCPUs", 'u', offsetof(CreateRequest, spec.vcpus) },
                { "MemoryBytes", 't', offsetof(CreateRequest, spec.memory_bytes) },
                { "DiskBytes", 't', offsetof(CreateRequest, spec.disk_bytes) },
                { "TimeoutUSec", 't', offsetof(CreateRequest, spec.timeout_usec) },
                { "Labels", 'E', offsetof(CreateRequest, spec.labels) },
                { "Env", 'E', offsetof(CreateRequest, spec.env) },
                { "NoWait", 'b', offsetof(CreateRequest, no_wait) },
                {},
        };
        const char *template;
        int r;

        r = sd_bus_message_read(m, "s", &template);
        if (r >= 0)
                r = free_and_strdup(&q->spec.template, template);
        if (r >= 0)
                r = bus_read_options(m, options, q, &q->caller, reterr);
        return r;
}

static int method_create(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(create_request_done) CreateRequest q = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = userdata;
        Capsule *c;
        int r;

        r = read_create(m, &q, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        r = bus_authorize(s, m, "create",
                          (const char *const[]) { "template", q.spec.template, "team", q.caller.team, "verb",
                                                  "create", NULL },
                          &q.caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        q.spec.owner_uid = q.caller.uid;
        q.spec.team = TAKE_PTR(q.caller.team);
        q.spec.key_id = TAKE_PTR(q.caller.key_id);

        r = capsule_create(s->manager, &q.spec, q.no_wait ? NULL : on_created, m, &c, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        if (q.no_wait)
                return reply_created(m, c);
        sd_bus_message_ref(m); /* on_created()'s */
        return 1;
}

/* --- get, list ------------------------------------------------------------------------------- */

static int method_get(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        const char *id;
        Capsule *c;
        int r;

        r = sd_bus_message_read(m, "s", &id);
        if (r < 0)
                return r;
        c = manager_find_capsule(s->manager, id, NULL, &fault);
        if (!c)
                return bus_error_from_fault(error, fault_errno(fault.code), &fault);

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        return r < 0 ? r : sd_bus_reply_method_return(m, "o", path);
}

static bool has_labels(const Capsule *c, char *const *filter) {
        STRV_FOREACH(i, filter)
                if (!strv_contains(c->spec.labels, *i))
                        return false;
        return true;
}

static int newest_first(const void *a, const void *b) {
        const Capsule *x = *(Capsule *const *) a, *y = *(Capsule *const *) b;

        return x->created_usec < y->created_usec   ? 1
               : x->created_usec > y->created_usec ? -1
                                                   : strcmp(x->id, y->id);
}

static int append_listed(sd_bus_message *reply, const Capsule *c) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        return r < 0 ? r
                     : sd_bus_message_append(reply, "(sssso)", c->id, strempty(c->spec.name),
                                             capsule_state_to_string(c->state), c->spec.template, path);
}

static int method_list(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ Capsule **list = NULL;
        _cleanup_strv_ char **filter = NULL;
        BusServer *s = userdata;
        uint64_t flags;
        size_t n = 0;
        Capsule *c;
        int r;

        r = bus_read_string_map(m, &filter, &fault);
        if (r >= 0)
                r = sd_bus_message_read(m, "t", &flags);
        if (r >= 0 && flags & ~LIST_ALL)
                r = fault_set(&fault, FAULT_INVALID_ARGS, "flags: expected 0 or 1.");
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);

        list = calloc(hashmap_size(s->manager->capsules) + 1, sizeof(Capsule *));
        if (!list)
                return -ENOMEM;
        HASHMAP_FOREACH(c, s->manager->capsules)
                if ((flags & LIST_ALL || !(CAPSULE_ENDED_BITS & STATE_BIT(c->state))) &&
                    has_labels(c, filter))
                        list[n++] = c;
        qsort(list, n, sizeof(Capsule *), newest_first);

        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(sssso)");
        for (size_t i = 0; i < n && r >= 0; i++)
                r = append_listed(reply, list[i]);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_message_send(reply);
}

/* --- destroy, ping --------------------------------------------------------------------------- */

/* Reads the options, finds the capsule, asks. 1: go on with *ret. */
static int begin(BusServer *s, sd_bus_message *m, const char *id, const char *verb, Capsule **ret,
                 sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = bus_read_options(m, NULL, NULL, &caller, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        *ret = manager_find_capsule(s->manager, id, caller.team, &fault);
        if (!*ret)
                return bus_error_from_fault(error, fault_errno(fault.code), &fault);
        return bus_capsule_authorize(s, m, *ret, verb, &caller, error);
}

int bus_capsule_destroy(BusServer *s, sd_bus_message *m, const char *id, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c;
        int r;

        r = begin(s, m, id, "destroy", &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_destroy(c, END_USER, bus_capsule_done, m, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        if (r > 0)
                return sd_bus_reply_method_return(m, NULL);
        sd_bus_message_ref(m); /* bus_capsule_done()'s */
        return 1;
}

int bus_capsule_ping(BusServer *s, sd_bus_message *m, const char *id, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c;
        int r;

        r = begin(s, m, id, "manage", &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_ping(c, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : sd_bus_reply_method_return(m, NULL);
}

static int method_destroy(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *id;
        int r;

        r = sd_bus_message_read(m, "s", &id);
        return r < 0 ? r : bus_capsule_destroy(userdata, m, id, error);
}

static int method_ping(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *id;
        int r;

        r = sd_bus_message_read(m, "s", &id);
        return r < 0 ? r : bus_capsule_ping(userdata, m, id, error);
}

#define METHOD SD_BUS_VTABLE_UNPRIVILEGED

const sd_bus_vtable bus_manager_capsule_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("CreateCapsule", SD_BUS_ARGS("s", template, "a{sv}", options),
                                SD_BUS_RESULT("s", id, "o", capsule), method_create, METHOD),
        SD_BUS_METHOD_WITH_ARGS("GetCapsule", SD_BUS_ARGS("s", id), SD_BUS_RESULT("o", capsule), method_get,
                                METHOD),
        SD_BUS_METHOD_WITH_ARGS("ListCapsules", SD_BUS_ARGS("a{ss}", label_filter, "t", flags),
                                SD_BUS_RESULT("a(sssso)", capsules), method_list, METHOD),
        SD_BUS_METHOD_WITH_ARGS("DestroyCapsule", SD_BUS_ARGS("s", id, "a{sv}", options), SD_BUS_NO_RESULT,
                                method_destroy, METHOD),
        SD_BUS_METHOD_WITH_ARGS("PingCapsule", SD_BUS_ARGS("s", id, "a{sv}", options), SD_BUS_NO_RESULT,
                                method_ping, METHOD),
        SD_BUS_SIGNAL_WITH_ARGS("CapsuleNew", SD_BUS_ARGS("s", id, "o", capsule), 0),
        SD_BUS_SIGNAL_WITH_ARGS("CapsuleRemoved", SD_BUS_ARGS("s", id, "o", capsule, "s", reason), 0),
        SD_BUS_VTABLE_END,
};

/* --- events ---------------------------------------------------------------------------------- */

static void warn_unless(int r, const Capsule *c) {
        if (r < 0)
                log_capsule(c->id, LOG_WARNING, r, "Failed to tell of a capsule's life, ignoring: %m");
}

void bus_capsule_new(Capsule *c, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        if (r >= 0)
                r = sd_bus_emit_object_added(s->bus, path);
        if (r >= 0)
                r = sd_bus_emit_signal(s->bus, BUS_PATH, BUS_NAME ".Manager", "CapsuleNew", "so", c->id,
                                       path);
        warn_unless(r, c);
}

/* The object stays until the record is forgotten: clients can ask how it ended. */
void bus_capsule_removed(Capsule *c, const char *reason, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        if (r >= 0)
                r = sd_bus_emit_signal(s->bus, BUS_PATH, BUS_NAME ".Manager", "CapsuleRemoved", "sos", c->id,
                                       path, reason);
        warn_unless(r, c);
}

/* Still in the table: sd-bus looks the object up to list its interfaces. */
void bus_capsule_freed(Capsule *c, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        if (r >= 0)
                r = sd_bus_emit_object_removed(s->bus, path);
        warn_unless(r, c);
}
