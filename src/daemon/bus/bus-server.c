/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-log-control.h"
#include "daemon/bus/bus-server.h"

/* The nouns and the vtables of the Manager interface; a new file is one line here. */
static const BusNoun *const nouns[] = {
        &bus_noun_capsule,
        &bus_noun_template,
        &bus_noun_job,
};

static const sd_bus_vtable *const manager_vtables[] = {
        bus_manager_vtable,     bus_manager_capsule_vtable, bus_manager_template_vtable,
        bus_manager_key_vtable, bus_manager_job_vtable,
};

static const ManagerEvents bus_events = {
        .capsule_new = bus_capsule_new,
        .capsule_changed = bus_capsule_changed,
        .capsule_removed = bus_capsule_removed,
        .capsule_freed = bus_capsule_freed,
        .process_exited = bus_process_exited,
        .template_new = bus_template_new,
        .template_changed = bus_template_changed,
        .template_removed = bus_template_removed,
        .job_new = bus_job_new,
        .job_changed = bus_job_changed,
        .job_log = bus_job_log,
        .job_removed = bus_job_removed,
        .key_revoked = bus_key_revoked,
        .manager_changed = bus_manager_changed,
};

static int add_noun(BusServer *s, const BusNoun *n) {
        _cleanup_free_ char *prefix = strjoin(BUS_PATH "/", n->kind);
        int r = 0;

        if (!prefix)
                return -ENOMEM;

        for (const sd_bus_vtable *const *v = n->vtables; r >= 0 && *v; v++)
                r = sd_bus_add_fallback_vtable(s->bus, NULL, prefix, n->interface, *v, n->find, s);
        if (r >= 0)
                r = sd_bus_add_node_enumerator(s->bus, NULL, prefix, n->enumerate, s);
        return r;
}

static int add_objects(BusServer *s) {
        int r;

        r = sd_bus_add_object_manager(s->bus, NULL, BUS_PATH);
        for (size_t i = 0; i < ELEMENTSOF(manager_vtables) && r >= 0; i++)
                r = sd_bus_add_object_vtable(s->bus, NULL, BUS_PATH, BUS_NAME ".Manager", manager_vtables[i],
                                             s);
        for (size_t i = 0; i < ELEMENTSOF(nouns) && r >= 0; i++)
                r = add_noun(s, nouns[i]);
        return r < 0 ? r : bus_log_control_add(s->bus);
}

int bus_server_new(Manager *m, sd_bus *bus, uid_t trusted_uid, BusServer **ret) {
        _cleanup_(bus_server_freep) BusServer *s = calloc(1, sizeof(BusServer));
        int r;

        if (!s)
                return -ENOMEM;

        *s = (BusServer) { .manager = m, .bus = sd_bus_ref(bus) };

        r = polkit_new(bus, trusted_uid, &s->polkit);
        if (r >= 0)
                r = add_objects(s);
        if (r < 0)
                return r;

        manager_set_events(m, &bus_events, s);
        *ret = TAKE_PTR(s);
        return 0;
}

static void forget_untold(BusServer *s) {
        for (size_t i = 0; i < s->n_untold; i++)
                s->untold[i] = sd_bus_message_unref(s->untold[i]);
        s->n_untold = 0;
}

int bus_server_tell(BusServer *s, sd_bus_message *signal) {
        if (s->has_name)
                return sd_bus_send(s->bus, signal, NULL);
        if (s->n_untold >= UNTOLD_EXITS_MAX)
                return -ENOBUFS;
        s->untold[s->n_untold++] = sd_bus_message_ref(signal);
        return 0;
}

BusServer* bus_server_free(BusServer *s) {
        if (!s)
                return NULL;

        manager_set_events(s->manager, NULL, NULL);
        sd_bus_slot_unref(s->name_call);
        forget_untold(s);
        polkit_free(s->polkit);
        sd_bus_unref(s->bus);
        free(s);
        return NULL;
}

static int on_name(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        BusServer *s = userdata;
        uint32_t result = 0;
        int r;

        r = sd_bus_message_is_method_error(reply, NULL) ? -sd_bus_message_get_errno(reply)
                                                        : sd_bus_message_read(reply, "u", &result);
        if (r >= 0 && result != 1 && result != 4)
                r = -EEXIST;
        if (r >= 0) {
                s->has_name = true;
                for (size_t i = 0; i < s->n_untold; i++)
                        (void) sd_bus_send(s->bus, s->untold[i], NULL);
                forget_untold(s);
                return 0;
        }

        (void) log_error_errno(r, "Failed to take the bus name '%s': %m", BUS_NAME);
        return sd_event_exit(sd_bus_get_event(s->bus), r);
}

int bus_server_take_name(BusServer *s) {
        return sd_bus_request_name_async(s->bus, &s->name_call, BUS_NAME, 0, on_name, s);
}
