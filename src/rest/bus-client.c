/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "rest/bus-client.h"
#include "shared/event.h"

#define MANAGER_INTERFACE BUS_NAME ".Manager"
#define CAPSULE_INTERFACE BUS_NAME ".Capsule"
#define SYNC_RETRY_USEC   (500 * USEC_PER_MSEC)
#define MAX_EXEC_USEC     (24 * 3600 * USEC_PER_SEC) /* until wrennd has told */

struct BusClient {
        sd_event *event;
        sd_bus *bus;
        const BusClientHandlers *handlers;
        void *userdata;

        Hashmap *capsules; /* id -> CapsuleView */
        Hashmap *by_path;  /* path -> CapsuleView */
        BusWait *waits;
        BusCall *sync;   /* GetManagedObjects under way */
        BusCall *limits; /* Limits of the Manager are asked for */
        uint64_t max_exec_usec;
        sd_event_source *retry;
        bool synced;
};

struct BusCall {
        BusClient *client; /* weak */
        sd_bus_slot *slot;
        BusDone done;
        void *userdata;
        char *path; /* bus_client_fetch() */
};

struct BusWait {
        BusClient *client; /* weak */
        BusWait *next, **link;
        sd_event_source *timer; /* the deadline, or at once when the copy is good */
        BusWaitDone done;
        void *userdata;
        int result;
};

static int client_sync(BusClient *b, bool activate);
static int client_fetched(BusCall *c, sd_bus_message *reply, Fault *reterr);

/* Calls. */

BusCall* bus_call_free(BusCall *c) {
        if (!c)
                return NULL;
        sd_bus_slot_unref(c->slot);
        free(c->path);
        free(c);
        return NULL;
}

/* Where no object is there is no method either: what answers is a matter of the library at the other end. */
static FaultCode reply_fault_code(const BusCall *c, const char *name) {
        if (c->path &&
            (streq(name, SD_BUS_ERROR_UNKNOWN_METHOD) || streq(name, SD_BUS_ERROR_UNKNOWN_INTERFACE)))
                return FAULT_NOT_FOUND;
        return fault_from_bus_name(name);
}

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error) {
        BusCall *c = userdata;
        const sd_bus_error *e = sd_bus_message_get_error(reply);
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r = 0;

        if (e)
                r = fault_set(&fault, reply_fault_code(c, e->name), "%s", e->message ?: e->name);
        else if (c->path)
                r = client_fetched(c, reply, &fault);
        c->done(c, r, r < 0 ? NULL : reply, &fault, c->userdata);
        return 0;
}

int bus_client_message(BusClient *b, const char *path, const char *member, sd_bus_message **ret) {
        return sd_bus_message_new_method_call(b->bus, ret, BUS_NAME, path ?: BUS_PATH,
                                              path ? CAPSULE_INTERFACE : MANAGER_INTERFACE, member);
}

int bus_message_open_options(sd_bus_message *m, const char *team, const char *key_id) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}", "Team", "s", team);
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}", "KeyId", "s", key_id);
        return r;
}

int bus_message_close_options(sd_bus_message *m) {
        return sd_bus_message_close_container(m);
}

int bus_client_send(BusClient *b, sd_bus_message *m, uint64_t timeout_usec, BusDone done, void *userdata,
                    BusCall **ret) {
        _cleanup_(bus_call_freep) BusCall *c = NULL;
        int r;

        if (!done)
                return sd_bus_send(b->bus, m, NULL);

        c = malloc(sizeof(BusCall));
        if (!c)
                return -ENOMEM;
        *c = (BusCall) { .client = b, .done = done, .userdata = userdata };

        r = sd_bus_call_async(b->bus, &c->slot, m, on_reply, c, timeout_usec ?: BUS_CALL_USEC);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

/* The copy. */

static void client_notify(BusClient *b, const char *id, CapsuleView *v) {
        if (b->synced && b->handlers)
                b->handlers->on_capsule(id, v, b->userdata);
}

static void client_remove(BusClient *b, CapsuleView *v) {
        (void) hashmap_remove(b->by_path, v->path);
        if (v->id && hashmap_get(b->capsules, v->id) == v)
                (void) hashmap_remove(b->capsules, v->id);
        if (v->id)
                client_notify(b, v->id, NULL);
        capsule_view_free(v);
}

/* Ended capsules are remembered in bounded number: the one that ended first goes. */
static void client_make_room(BusClient *b) {
        CapsuleView *v, *oldest = NULL;
        size_t n = 0;

        HASHMAP_FOREACH(v, b->by_path) {
                if (!capsule_view_is_ended(v))
                        continue;
                n++;
                if (!oldest || v->last_updated_usec < oldest->last_updated_usec)
                        oldest = v;
        }
        if (n >= CAPSULES_STOPPED_MAX)
                client_remove(b, oldest);
}

/* Reads a{sv} into the view of path, which is made when new. */
static int client_update(BusClient *b, const char *path, sd_bus_message *m, CapsuleView **ret) {
        _cleanup_(capsule_view_freep) CapsuleView *fresh = NULL;
        CapsuleView *v;
        int r;

        v = hashmap_get(b->by_path, path);
        if (v) {
                r = capsule_view_read(v, m);
                *ret = v;
                return r;
        }

        client_make_room(b);
        r = capsule_view_new(path, &fresh);
        if (r < 0)
                return r;
        r = capsule_view_read(fresh, m);
        if (r < 0)
                return r;
        if (isempty(fresh->id))
                return -ENXIO;

        r = hashmap_put(b->by_path, fresh->path, fresh);
        if (r < 0)
                return r;
        r = hashmap_put(b->capsules, fresh->id, fresh);
        if (r < 0) {
                (void) hashmap_remove(b->by_path, fresh->path);
                return r;
        }
        *ret = TAKE_PTR(fresh);
        return 0;
}

/* a{sa{sv}} of one object. A view when it is a capsule, else NULL. */
static int client_read_interfaces(BusClient *b, const char *path, sd_bus_message *m, CapsuleView **ret) {
        CapsuleView *v = NULL;
        const char *interface;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'e', "sa{sv}")) > 0) {
                r = sd_bus_message_read(m, "s", &interface);
                if (r < 0)
                        return r;
                if (streq(interface, CAPSULE_INTERFACE))
                        r = client_update(b, path, m, &v);
                else
                        r = sd_bus_message_skip(m, "a{sv}");
                if (r < 0)
                        return r;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        *ret = v;
        return sd_bus_message_exit_container(m);
}

static int client_read_objects(BusClient *b, sd_bus_message *m) {
        CapsuleView *v;
        int r;

        HASHMAP_FOREACH(v, b->by_path)
                v->seen = false;

        r = sd_bus_message_enter_container(m, 'a', "{oa{sa{sv}}}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'e', "oa{sa{sv}}")) > 0) {
                const char *path;

                r = sd_bus_message_read(m, "o", &path);
                if (r < 0)
                        return r;
                v = NULL;
                r = client_read_interfaces(b, path, m, &v);
                if (r < 0)
                        return r;
                if (v)
                        v->seen = true;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;

        /* ended ones are not listed, but their records are still there */
        HASHMAP_FOREACH(v, b->by_path)
                if (!v->seen && !capsule_view_is_ended(v))
                        client_remove(b, v);
        return 0;
}

static int client_fetched(BusCall *c, sd_bus_message *reply, Fault *reterr) {
        CapsuleView *v;
        int r;

        r = client_update(c->client, c->path, reply, &v);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read a capsule's properties");
        client_notify(c->client, v->id, v);
        return 0;
}

CapsuleView* bus_client_capsule(BusClient *b, const char *id) {
        return hashmap_get(b->capsules, id);
}

uint64_t bus_client_max_exec_usec(const BusClient *b) {
        return b->max_exec_usec;
}

const Hashmap* bus_client_capsules(const BusClient *b) {
        return b->capsules;
}

int bus_client_fetch(BusClient *b, const char *id, BusDone done, void *userdata, BusCall **ret) {
        _cleanup_free_ char *path = NULL;
        sd_bus_message *m = NULL;
        int r;

        r = sd_bus_path_encode(BUS_PATH "/capsule", id, &path);
        if (r < 0)
                return r;

        r = sd_bus_message_new_method_call(b->bus, &m, BUS_NAME, path, "org.freedesktop.DBus.Properties",
                                           "GetAll");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", CAPSULE_INTERFACE);
        if (r >= 0)
                r = bus_client_send(b, m, 0, done, userdata, ret);
        sd_bus_message_unref(m);
        if (r < 0)
                return r;

        (*ret)->path = TAKE_PTR(path);
        return 0;
}

/* Waiting for it. */

BusWait* bus_wait_free(BusWait *w) {
        if (!w)
                return NULL;
        *w->link = w->next;
        if (w->next)
                w->next->link = w->link;
        event_source_free(w->timer);
        free(w);
        return NULL;
}

static int on_wait_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        BusWait *w = userdata;

        w->done(w, w->result, w->userdata);
        return 0;
}

int bus_client_wait(BusClient *b, BusWaitDone done, void *userdata, BusWait **ret) {
        BusWait *w;
        int r;

        w = malloc(sizeof(BusWait));
        if (!w)
                return -ENOMEM;
        *w = (BusWait) {
                .client = b,
                .next = b->waits,
                .link = &b->waits,
                .done = done,
                .userdata = userdata,
                .result = -ETIMEDOUT,
        };
        if (w->next)
                w->next->link = &w->next;
        b->waits = w;
        if (b->synced)
                w->result = 0;

        r = event_timer(b->event, &w->timer, b->synced ? 0 : BUS_WAIT_USEC, PRIORITY_CLIENT, on_wait_timer,
                        w, "bus-wait");
        if (r >= 0 && !b->synced)
                r = client_sync(b, /* activate= */ true);
        if (r < 0) {
                bus_wait_free(w);
                return r;
        }
        *ret = w;
        return 0;
}

/* Wakes all who wait, one by one from the loop: their callbacks may free others. */
static void client_wake(BusClient *b) {
        for (BusWait *w = b->waits; w; w = w->next) {
                w->result = 0;
                (void) event_timer(b->event, &w->timer, 0, PRIORITY_CLIENT, on_wait_timer, w, "bus-wait");
        }
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata) {
        BusClient *b = userdata;

        if (!b->synced && b->waits)
                (void) client_sync(b, /* activate= */ true);
        return 0;
}

static int read_limits(BusClient *b, sd_bus_message *m) {
        const char *name;
        uint64_t value;
        int r;

        r = sd_bus_message_enter_container(m, 'v', "a{st}");
        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'a', "{st}");
        while (r >= 0 && (r = sd_bus_message_read(m, "{st}", &name, &value)) > 0)
                if (streq(name, "MaxExecUSec") && value > 0)
                        b->max_exec_usec = MIN(value, EXEC_TIMEOUT_USEC_MAX);
        return r;
}

static void on_limits(BusCall *c, int r, sd_bus_message *reply, const Fault *fault, void *userdata) {
        BusClient *b = userdata;

        b->limits = bus_call_free(b->limits);
        if (r >= 0)
                r = read_limits(b, reply);
        if (r < 0)
                log_debug("Failed to read the limits of wrennd: %s", fault->message ?: "malformed answer");
}

static int client_ask_limits(BusClient *b) {
        sd_bus_message *m = NULL;
        int r;

        b->limits = bus_call_free(b->limits);
        r = sd_bus_message_new_method_call(b->bus, &m, BUS_NAME, BUS_PATH, "org.freedesktop.DBus.Properties",
                                           "Get");
        if (r >= 0)
                r = sd_bus_message_append(m, "ss", MANAGER_INTERFACE, "Limits");
        if (r >= 0)
                r = bus_client_send(b, m, 0, on_limits, b, &b->limits);
        sd_bus_message_unref(m);
        return r;
}

static void on_objects(BusCall *c, int r, sd_bus_message *reply, const Fault *fault, void *userdata) {
        BusClient *b = userdata;
        CapsuleView *v;

        b->sync = bus_call_free(b->sync);
        if (r >= 0)
                r = client_read_objects(b, reply);
        if (r < 0) {
                log_debug("Failed to read the capsules of wrennd: %s", fault->message ?: "malformed answer");
                (void) event_timer(b->event, &b->retry, SYNC_RETRY_USEC, PRIORITY_CLIENT, on_retry, b,
                                   "bus-retry");
                return;
        }

        b->synced = true;
        (void) client_ask_limits(b);
        HASHMAP_FOREACH(v, b->capsules)
                client_notify(b, v->id, v);
        client_wake(b);
}

static int client_sync(BusClient *b, bool activate) {
        sd_bus_message *m = NULL;
        int r;

        if (b->synced || b->sync)
                return 0;

        r = sd_bus_message_new_method_call(b->bus, &m, BUS_NAME, BUS_PATH,
                                           "org.freedesktop.DBus.ObjectManager", "GetManagedObjects");
        if (r >= 0)
                r = sd_bus_message_set_auto_start(m, activate);
        if (r >= 0)
                r = bus_client_send(b, m, BUS_CALL_USEC, on_objects, b, &b->sync);
        sd_bus_message_unref(m);
        return r;
}

bool bus_client_is_synced(const BusClient *b) {
        return b->synced;
}

/* Signals. What comes before the answer to GetManagedObjects is contained in it. */

static int on_name_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        BusClient *b = userdata;
        const char *name, *old, *new;

        if (sd_bus_message_read(m, "sss", &name, &old, &new) < 0 || !streq(name, BUS_NAME))
                return 0;

        if (!isempty(old)) {
                b->synced = false;
                b->sync = bus_call_free(b->sync);
                if (b->handlers)
                        b->handlers->on_lost(b->userdata);
        }
        if (!isempty(new) || b->waits)
                (void) client_sync(b, b->waits != NULL);
        return 0;
}

static int on_properties_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        BusClient *b = userdata;
        const char *interface;
        CapsuleView *v;

        if (!b->synced || sd_bus_message_read(m, "s", &interface) < 0)
                return 0;
        if (streq(interface, MANAGER_INTERFACE))
                (void) client_ask_limits(b);
        if (!streq(interface, CAPSULE_INTERFACE))
                return 0;

        v = hashmap_get(b->by_path, sd_bus_message_get_path(m));
        if (v && capsule_view_read(v, m) >= 0)
                client_notify(b, v->id, v);
        return 0;
}

static int on_interfaces_added(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        BusClient *b = userdata;
        CapsuleView *v = NULL;
        const char *path;

        if (!b->synced || sd_bus_message_read(m, "o", &path) < 0)
                return 0;
        if (client_read_interfaces(b, path, m, &v) >= 0 && v)
                client_notify(b, v->id, v);
        return 0;
}

static int on_interfaces_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        BusClient *b = userdata;
        const char *path;
        CapsuleView *v;

        if (!b->synced || sd_bus_message_read(m, "o", &path) < 0)
                return 0;
        v = hashmap_get(b->by_path, path);
        if (v && !capsule_view_is_ended(v))
                client_remove(b, v);
        return 0;
}

static int on_key_revoked(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        BusClient *b = userdata;
        const char *id;

        if (sd_bus_message_read(m, "s", &id) >= 0 && b->handlers)
                b->handlers->on_key_revoked(id, b->userdata);
        return 0;
}

static int client_match(BusClient *b) {
        static const struct {
                const char *match;
                sd_bus_message_handler_t handler;
        } matches[] = {
                { "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',"
                  "arg0='" BUS_NAME "'",
                  on_name_owner_changed },
                { "type='signal',sender='" BUS_NAME "',interface='org.freedesktop.DBus.Properties',"
                  "member='PropertiesChanged',path_namespace='" BUS_PATH "'",
                  on_properties_changed },
                { "type='signal',sender='" BUS_NAME "',interface='org.freedesktop.DBus.ObjectManager',"
                  "member='InterfacesAdded'",
                  on_interfaces_added },
                { "type='signal',sender='" BUS_NAME "',interface='org.freedesktop.DBus.ObjectManager',"
                  "member='InterfacesRemoved'",
                  on_interfaces_removed },
                { "type='signal',sender='" BUS_NAME "',interface='" MANAGER_INTERFACE
                  "',member='KeyRevoked'",
                  on_key_revoked },
        };

        for (size_t i = 0; i < ELEMENTSOF(matches); i++) {
                int r = sd_bus_add_match_async(b->bus, NULL, matches[i].match, matches[i].handler, NULL, b);

                if (r < 0)
                        return r;
        }
        return 0;
}

int bus_client_new(sd_event *e, sd_bus *bus, BusClient **ret) {
        _cleanup_(bus_client_freep) BusClient *b = NULL;
        int r;

        b = malloc(sizeof(BusClient));
        if (!b)
                return -ENOMEM;
        *b = (BusClient) {
                .event = sd_event_ref(e),
                .bus = sd_bus_ref(bus),
                .capsules = hashmap_new(),
                .by_path = hashmap_new(),
                .max_exec_usec = MAX_EXEC_USEC,
        };
        if (!b->capsules || !b->by_path)
                return -ENOMEM;

        r = sd_bus_attach_event(bus, e, PRIORITY_CLIENT);
        if (r < 0)
                return r;
        (void) sd_bus_set_exit_on_disconnect(bus, true);

        r = client_match(b);
        if (r < 0)
                return r;
        r = client_sync(b, /* activate= */ false);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(b);
        return 0;
}

void bus_client_set_handlers(BusClient *b, const BusClientHandlers *handlers, void *userdata) {
        b->handlers = handlers;
        b->userdata = userdata;
}

BusClient* bus_client_free(BusClient *b) {
        CapsuleView *v;

        if (!b)
                return NULL;

        b->handlers = NULL;
        b->sync = bus_call_free(b->sync);
        b->limits = bus_call_free(b->limits);
        event_source_free(b->retry);
        while (b->waits)
                bus_wait_free(b->waits);
        while ((v = hashmap_first(b->by_path)))
                client_remove(b, v);
        hashmap_free(b->capsules);
        hashmap_free(b->by_path);
        if (b->bus) {
                (void) sd_bus_detach_event(b->bus);
                sd_bus_flush_close_unref(b->bus);
        }
        sd_event_unref(b->event);
        free(b);
        return NULL;
}
