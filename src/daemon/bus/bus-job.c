/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-capsule.h"
#include "daemon/core/job.h"

#define INTERFACE BUS_NAME ".Job"

/* --- the object ------------------------------------------------------------------------------ */

static int property_get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
                               sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Job *j = userdata;
        const char *value = streq(property, "Kind")     ? job_kind_to_string(job_kind(j))
                            : streq(property, "Target") ? job_target(j)
                            : streq(property, "Unit")   ? job_unit(j)
                            : streq(property, "Step")   ? job_step(j)
                                                        : job_state_to_string(job_state(j));

        return sd_bus_message_append(reply, "s", value);
}

static int property_get_id(sd_bus *bus, const char *path, const char *interface, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append(reply, "u", job_id(userdata));
}

static int property_get_bytes(sd_bus *bus, const char *path, const char *interface, const char *property,
                              sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append(reply, "t", job_bytes(userdata));
}

static int property_get_progress(sd_bus *bus, const char *path, const char *interface, const char *property,
                                 sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append(reply, "d", job_progress(userdata));
}

static int property_get_started(sd_bus *bus, const char *path, const char *interface, const char *property,
                                sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append(reply, "t", job_started_usec(userdata));
}

/* The server of a job's handler: its object's vtable is registered with it. */
static BusServer* server_of(sd_bus_message *m) {
        return sd_bus_slot_get_userdata(sd_bus_get_current_slot(sd_bus_message_get_bus(m)));
}

/* Who may begin it may end it. */
static int authorize_cancel(BusServer *s, sd_bus_message *m, Job *j, BusCaller *caller,
                            sd_bus_error *error) {
        const char *const details[] = { "template", job_target(j), "verb", "cancel", NULL };
        Capsule *c = job_capsule(j);

        if (c)
                return bus_capsule_authorize(s, m, c,
                                             job_kind(j) == JOB_COPY_TO ? "write-files" : "read-files",
                                             caller, error);
        return bus_authorize(s, m, "manage-templates", details, caller, error);
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = server_of(m);
        Job *j = userdata;
        int r;

        r = authorize_cancel(s, m, j, &caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        if (caller.uid != 0 && caller.uid == polkit_trusted_uid(s->polkit)) {
                r = fault_set(&fault, FAULT_ACCESS_DENIED, "wrenn-restd may not cancel jobs.");
                return bus_error_from_fault(error, r, &fault);
        }

        job_cancel(j);
        return sd_bus_reply_method_return(m, NULL);
}

static const sd_bus_vtable job_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Cancel", NULL, NULL, method_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_SIGNAL_WITH_ARGS("LogMessage", SD_BUS_ARGS("u", priority, "s", line), 0),
        SD_BUS_PROPERTY("Id", "u", property_get_id, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Kind", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Target", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Unit", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Progress", "d", property_get_progress, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Bytes", "t", property_get_bytes, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Step", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("State", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Started", "t", property_get_started, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int find_job(sd_bus *bus, const char *path, const char *interface, void *userdata, void **found,
                    sd_bus_error *error) {
        _cleanup_free_ char *name = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_name(path, "job", &name);
        if (r <= 0)
                return r;
        *found = hashmap_get(s->manager->jobs, name);
        return *found != NULL;
}

static int enumerate_jobs(sd_bus *bus, const char *prefix, void *userdata, char ***ret_nodes,
                          sd_bus_error *error) {
        _cleanup_strv_ char **nodes = NULL;
        BusServer *s = userdata;
        Job *j;
        int r;

        HASHMAP_FOREACH(j, s->manager->jobs) {
                char *path = NULL;

                r = bus_object_path("job", job_name(j), &path);
                if (r >= 0)
                        r = strv_consume(&nodes, path);
                if (r < 0)
                        return r;
        }
        *ret_nodes = TAKE_PTR(nodes);
        return 1;
}

static const sd_bus_vtable *const vtables[] = { job_vtable, NULL };

const BusNoun bus_noun_job = {
        .kind = "job",
        .interface = INTERFACE,
        .vtables = vtables,
        .find = find_job,
        .enumerate = enumerate_jobs,
};

/* --- the Manager's signals, and what happens ------------------------------------------------- */

const sd_bus_vtable bus_manager_job_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_SIGNAL_WITH_ARGS("JobNew", SD_BUS_ARGS("u", id, "o", job), 0),
        SD_BUS_SIGNAL_WITH_ARGS("JobRemoved", SD_BUS_ARGS("u", id, "o", job, "s", result, "s", message), 0),
        SD_BUS_VTABLE_END,
};

static void warn(const Job *j, int r) {
        if (r < 0)
                (void) log_warning_errno(r, "Failed to tell of job %u, ignoring: %m", job_id(j));
}

void bus_job_new(Job *j, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path("job", job_name(j), &path);
        if (r >= 0)
                r = sd_bus_emit_interfaces_added(s->bus, path, INTERFACE, NULL);
        if (r >= 0)
                r = sd_bus_emit_signal(s->bus, BUS_PATH, BUS_NAME ".Manager", "JobNew", "uo", job_id(j),
                                       path);
        warn(j, r);
}

void bus_job_changed(Job *j, const char *const *properties, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path("job", job_name(j), &path);
        if (r >= 0)
                r = sd_bus_emit_properties_changed_strv(s->bus, path, INTERFACE, (char **) properties);
        warn(j, r);
}

void bus_job_log(Job *j, int priority, const char *line, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path("job", job_name(j), &path);
        if (r >= 0)
                r = sd_bus_emit_signal(s->bus, path, INTERFACE, "LogMessage", "us", (uint32_t) priority,
                                       line);
        warn(j, r);
}

void bus_job_removed(Job *j, const char *result, const char *message, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path("job", job_name(j), &path);
        if (r >= 0)
                r = sd_bus_emit_signal(s->bus, BUS_PATH, BUS_NAME ".Manager", "JobRemoved", "uoss",
                                       job_id(j), path, result, message);
        if (r >= 0)
                r = sd_bus_emit_interfaces_removed(s->bus, path, INTERFACE, NULL);
        warn(j, r);
}
