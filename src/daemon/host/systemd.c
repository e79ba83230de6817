/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/host/systemd.h"
#include "shared/event.h"

#define SYSTEMD_NAME       "org.freedesktop.systemd1"
#define SYSTEMD_PATH       "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER    "org.freedesktop.systemd1.Manager"
#define SYSTEMD_UNIT       "org.freedesktop.systemd1.Unit"
#define SYSTEMD_SCOPE      "org.freedesktop.systemd1.Scope"
#define ERROR_NO_SUCH_UNIT "org.freedesktop.systemd1.NoSuchUnit"
#define ERROR_UNIT_EXISTS  "org.freedesktop.systemd1.UnitExists"
#define UNITS_LISTED_MAX   4096U

typedef enum UnitCallKind {
        UNIT_CALL_START,
        UNIT_CALL_STOP,
        UNIT_CALL_LIST,
        UNIT_CALL_GET,
} UnitCallKind;

struct UnitCall {
        Systemd *systemd;
        UnitCall *next;
        UnitCallKind kind;
        char *unit;
        char *job;         /* path, once PID 1 told it */
        sd_bus_slot *slot; /* the method call that is open */
        sd_event_source *timer;
        union {
                UnitDone done;
                UnitListDone list_done;
                UnitPropertyDone get_done;
        };
        void *userdata;
};

struct Systemd {
        sd_bus *bus;
        const SystemdHandlers *handlers;
        void *userdata;
        sd_bus_slot *job_removed, *unit_removed, *request_stop;
        UnitCall *calls;
};

static void unit_call_unlink(UnitCall *c) {
        for (UnitCall **i = &c->systemd->calls; *i; i = &(*i)->next)
                if (*i == c) {
                        *i = c->next;
                        return;
                }
}

UnitCall* unit_call_free(UnitCall *c) {
        if (!c)
                return NULL;

        c->timer = event_source_free(c->timer);
        sd_bus_slot_unref(c->slot);
        unit_call_unlink(c);
        free(c->job);
        free(c->unit);
        free(c);
        return NULL;
}

static int unit_call_new(Systemd *s, UnitCallKind kind, const char *unit, void *userdata, UnitCall **ret) {
        UnitCall *c = malloc(sizeof(UnitCall));

        if (!c)
                return -ENOMEM;

        *c = (UnitCall) {
                .systemd = s, .next = s->calls, .kind = kind, .unit = strdup(unit), .userdata = userdata
        };
        if (!c->unit) {
                free(c);
                return -ENOMEM;
        }
        s->calls = c;
        *ret = c;
        return 0;
}

/* Ends the call; its owner frees it in done. No source of it fires any more. */
static void unit_call_complete(UnitCall *c, int r, const Fault *fault) {
        c->timer = event_source_free(c->timer);
        c->slot = sd_bus_slot_unref(c->slot);
        c->job = (free(c->job), NULL);
        c->done(c, r, fault, c->userdata);
}

static void unit_call_fail(UnitCall *c, int r, const char *text) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        (void) fault_set(&fault, r == -ETIMEDOUT ? FAULT_TIMEOUT : FAULT_BACKEND_UNAVAILABLE,
                         "systemd did not %s '%s': %s.", c->kind == UNIT_CALL_START ? "start" : "stop",
                         c->unit, text);
        unit_call_complete(c, r, &fault);
}

static int error_to_errno(const sd_bus_error *e) {
        if (streq_ptr(e->name, ERROR_UNIT_EXISTS))
                return -EEXIST;
        if (streq_ptr(e->name, ERROR_NO_SUCH_UNIT))
                return -ENOENT;
        if (sd_bus_error_get_errno(e) == ETIMEDOUT)
                return -ETIMEDOUT;
        if (sd_bus_error_get_errno(e) == ECONNRESET)
                return -ECONNRESET;
        return -EREMOTEIO;
}

/* ActiveState, asked because the signal did not come. */
static int on_looked(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        UnitCall *c = userdata;
        const char *state = "";

        if (sd_bus_message_is_method_error(reply, NULL)) {
                if (c->kind == UNIT_CALL_STOP && sd_bus_message_get_errno(reply) != ETIMEDOUT)
                        unit_call_complete(c, 0, NULL);
                else
                        unit_call_fail(c, -ETIMEDOUT, "no answer");
                return 1;
        }

        (void) sd_bus_message_read(reply, "v", "s", &state);
        if (streq(state, c->kind == UNIT_CALL_START ? "active" : "inactive") ||
            (c->kind == UNIT_CALL_STOP && streq(state, "failed")))
                unit_call_complete(c, 0, NULL);
        else
                unit_call_fail(c, -ETIMEDOUT, "it took too long");
        return 1;
}

static int call_property(Systemd *s, UnitCall *c, const char *interface, const char *property,
                         sd_bus_message_handler_t handler) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = sd_bus_path_encode(SYSTEMD_PATH "/unit", c->unit, &path);
        if (r < 0)
                return r;
        return sd_bus_call_method_async(s->bus, &c->slot, SYSTEMD_NAME, path,
                                        "org.freedesktop.DBus.Properties", "Get", handler, c, "ss",
                                        interface, property);
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        UnitCall *c = userdata;

        c->slot = sd_bus_slot_unref(c->slot);
        c->job = (free(c->job), NULL);
        if (call_property(c->systemd, c, SYSTEMD_UNIT, "ActiveState", on_looked) < 0)
                unit_call_fail(c, -ETIMEDOUT, "it took too long");
        return 0;
}

static int on_queued(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        UnitCall *c = userdata;
        const char *job;
        int r;

        c->slot = sd_bus_slot_unref(c->slot);

        if (sd_bus_message_is_method_error(reply, NULL)) {
                const sd_bus_error *e = sd_bus_message_get_error(reply);

                r = error_to_errno(e);
                if (r == -ENOENT && c->kind == UNIT_CALL_STOP)
                        unit_call_complete(c, 0, NULL);
                else
                        unit_call_fail(c, r, strempty(e->message));
                return 1;
        }

        r = sd_bus_message_read(reply, "o", &job);
        if (r >= 0)
                r = free_and_strdup(&c->job, job);
        if (r < 0)
                unit_call_fail(c, r, strerror(-r));
        return 1;
}

static int on_job_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *job, *unit, *result;
        Systemd *s = userdata;
        uint32_t id;

        if (sd_bus_message_read(m, "uoss", &id, &job, &unit, &result) < 0)
                return 0;

        for (UnitCall *c = s->calls; c; c = c->next) {
                if (!streq_ptr(c->job, job))
                        continue;
                if (streq(result, "done") || (c->kind == UNIT_CALL_STOP && !streq(result, "canceled")))
                        unit_call_complete(c, 0, NULL);
                else
                        unit_call_fail(c, streq(result, "canceled") ? -ECANCELED : -EREMOTEIO, result);
                break; /* the list may have changed */
        }
        return 0;
}

static int on_unit_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Systemd *s = userdata;
        const char *unit;

        if (sd_bus_message_read(m, "s", &unit) < 0)
                return 0;
        if (s->handlers && s->handlers->on_unit_removed)
                s->handlers->on_unit_removed(s, unit, s->userdata);
        return 0;
}

static int on_request_stop(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_free_ char *unit = NULL;
        Systemd *s = userdata;

        if (sd_bus_path_decode(sd_bus_message_get_path(m), SYSTEMD_PATH "/unit", &unit) <= 0)
                return 0;
        if (s->handlers && s->handlers->on_request_stop)
                s->handlers->on_request_stop(s, unit, s->userdata);
        return 0;
}

int systemd_new(sd_bus *bus, const SystemdHandlers *handlers, void *userdata, Systemd **ret) {
        _cleanup_(systemd_freep) Systemd *s = calloc(1, sizeof(Systemd));
        int r;

        if (!s)
                return -ENOMEM;

        *s = (Systemd) { .bus = sd_bus_ref(bus), .handlers = handlers, .userdata = userdata };

        r = sd_bus_match_signal_async(bus, &s->job_removed, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                      "JobRemoved", on_job_removed, NULL, s);
        if (r >= 0)
                r = sd_bus_match_signal_async(bus, &s->unit_removed, SYSTEMD_NAME, SYSTEMD_PATH,
                                              SYSTEMD_MANAGER, "UnitRemoved", on_unit_removed, NULL, s);
        if (r >= 0)
                r = sd_bus_match_signal_async(bus, &s->request_stop, SYSTEMD_NAME, NULL, SYSTEMD_SCOPE,
                                              "RequestStop", on_request_stop, NULL, s);
        if (r >= 0)
                r = sd_bus_call_method_async(bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                             "Subscribe", NULL, NULL, NULL);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(s);
        return 0;
}

Systemd* systemd_free(Systemd *s) {
        if (!s)
                return NULL;

        sd_bus_slot_unref(s->job_removed);
        sd_bus_slot_unref(s->unit_removed);
        sd_bus_slot_unref(s->request_stop);
        while (s->calls)
                (void) unit_call_free(s->calls);
        sd_bus_unref(s->bus);
        free(s);
        return NULL;
}

sd_bus* systemd_bus(Systemd *s) {
        return s->bus;
}

/* Arms the timer and hands the call over. */
static int unit_call_begin(UnitCall *c, UnitCall **ret) {
        int r;

        r = event_timer(sd_bus_get_event(c->systemd->bus), &c->timer, UNIT_CALL_TIMEOUT_USEC,
                        PRIORITY_CLIENT, on_timeout, c, "unit-call");
        if (r < 0)
                return r;
        *ret = c;
        return 0;
}

int systemd_start_transient(Systemd *s, const char *unit, UnitFill fill, void *fill_userdata, UnitDone done,
                            void *userdata, UnitCall **ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(unit_call_freep) UnitCall *c = NULL;
        int r;

        r = unit_call_new(s, UNIT_CALL_START, unit, userdata, &c);
        if (r < 0)
                return r;
        c->done = done;

        r = sd_bus_message_new_method_call(s->bus, &m, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                           "StartTransientUnit");
        if (r >= 0)
                r = sd_bus_message_append(m, "ss", unit, "fail");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "(sv)");
        if (r >= 0)
                r = fill(m, fill_userdata);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_message_append(m, "a(sa(sv))", 0);
        if (r >= 0)
                r = sd_bus_call_async(s->bus, &c->slot, m, on_queued, c, UNIT_CALL_TIMEOUT_USEC);
        if (r >= 0)
                r = unit_call_begin(c, ret);
        if (r < 0)
                return r;

        (void) TAKE_PTR(c);
        return 0;
}

int systemd_stop_unit(Systemd *s, const char *unit, UnitDone done, void *userdata, UnitCall **ret) {
        _cleanup_(unit_call_freep) UnitCall *c = NULL;
        int r;

        r = unit_call_new(s, UNIT_CALL_STOP, unit, userdata, &c);
        if (r < 0)
                return r;
        c->done = done;

        r = sd_bus_call_method_async(s->bus, &c->slot, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                     "StopUnit", on_queued, c, "ss", unit, "replace");
        if (r >= 0)
                r = unit_call_begin(c, ret);
        if (r < 0)
                return r;

        (void) TAKE_PTR(c);
        return 0;
}

int systemd_kill_unit(Systemd *s, const char *unit, int signal) {
        return sd_bus_call_method_async(s->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                        "KillUnit", NULL, NULL, "ssi", unit, "all", (int32_t) signal);
}

int systemd_reset_failed(Systemd *s, const char *unit) {
        return sd_bus_call_method_async(s->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                        "ResetFailedUnit", NULL, NULL, "s", unit);
}

int systemd_unref_unit(Systemd *s, const char *unit) {
        return sd_bus_call_method_async(s->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                        "UnrefUnit", NULL, NULL, "s", unit);
}

int systemd_abandon_scope(Systemd *s, const char *unit) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = sd_bus_path_encode(SYSTEMD_PATH "/unit", unit, &path);
        if (r < 0)
                return r;
        return sd_bus_call_method_async(s->bus, NULL, SYSTEMD_NAME, path, SYSTEMD_SCOPE, "Abandon", NULL,
                                        NULL, NULL);
}

static void list_complete(UnitCall *c, int r, const UnitInfo *units, size_t n) {
        c->slot = sd_bus_slot_unref(c->slot);
        c->list_done(c, r, units, n, c->userdata);
}

static int on_listed(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        _cleanup_free_ UnitInfo *units = NULL;
        UnitCall *c = userdata;
        size_t n = 0;
        int r;

        if (sd_bus_message_is_method_error(reply, NULL)) {
                list_complete(c, error_to_errno(sd_bus_message_get_error(reply)), NULL, 0);
                return 1;
        }

        units = calloc(UNITS_LISTED_MAX, sizeof(UnitInfo));
        r = units ? sd_bus_message_enter_container(reply, 'a', "(ssssssouso)") : -ENOMEM;
        while (r >= 0) {
                const char *name, *active, *sub;

                r = sd_bus_message_read(reply, "(ssssssouso)", &name, NULL, NULL, &active, &sub, NULL, NULL,
                                        NULL, NULL, NULL);
                if (r <= 0)
                        break;
                if (n >= UNITS_LISTED_MAX)
                        r = -ENOBUFS;
                else
                        units[n++] = (UnitInfo) { name, active, sub };
        }

        list_complete(c, r < 0 ? r : 0, units, n);
        return 1;
}

int systemd_list_units(Systemd *s, const char *pattern, UnitListDone done, void *userdata, UnitCall **ret) {
        _cleanup_(unit_call_freep) UnitCall *c = NULL;
        int r;

        r = unit_call_new(s, UNIT_CALL_LIST, pattern, userdata, &c);
        if (r < 0)
                return r;
        c->list_done = done;

        r = sd_bus_call_method_async(s->bus, &c->slot, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                     "ListUnitsByPatterns", on_listed, c, "asas", 0, 1, pattern);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(c);
        return 0;
}

static int on_property(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const char *value = NULL;
        UnitCall *c = userdata;
        int r;

        c->slot = sd_bus_slot_unref(c->slot);
        if (sd_bus_message_is_method_error(reply, NULL))
                r = error_to_errno(sd_bus_message_get_error(reply));
        else
                r = sd_bus_message_read(reply, "v", "s", &value);

        c->get_done(c, r < 0 ? r : 0, value, c->userdata);
        return 1;
}

int systemd_get_string(Systemd *s, const char *unit, const char *interface, const char *property,
                       UnitPropertyDone done, void *userdata, UnitCall **ret) {
        _cleanup_(unit_call_freep) UnitCall *c = NULL;
        int r;

        r = unit_call_new(s, UNIT_CALL_GET, unit, userdata, &c);
        if (r < 0)
                return r;
        c->get_done = done;

        r = call_property(s, c, interface, property, on_property);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(c);
        return 0;
}
