/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The Capsule interface: objects below BUS_PATH "/capsule". Ended ones stay until their record is forgotten.
 */

#include <string.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-capsule.h"
#include "daemon/bus/bus-server.h"
#include "daemon/core/capsule.h"

/* --- properties ------------------------------------------------------------------------------ */

#define GETTER(name, signature, value)                                                              \
        static int property_get_##name(sd_bus *bus, const char *path, const char *interface,        \
                                       const char *property, sd_bus_message *reply, void *userdata, \
                                       sd_bus_error *error) {                                       \
                const Capsule *c _unused_ = userdata;                                               \
                                                                                                    \
                return sd_bus_message_append(reply, signature, value);                              \
        }

GETTER(id, "s", c->id)
GETTER(name, "s", strempty(c->spec.name))
GETTER(template, "s", strempty(c->spec.template))
GETTER(team, "s", strempty(c->spec.team))
GETTER(owner_uid, "u", (uint32_t) c->spec.owner_uid)
GETTER(unit, "s", c->unit)
GETTER(backend, "s", "qemu")
GETTER(isolation, "s", capsule_isolation(c))
GETTER(state, "s", capsule_state_to_string(c->state))
GETTER(vcpus, "u", c->spec.vcpus)
GETTER(memory_bytes, "t", c->spec.memory_bytes)
GETTER(disk_bytes, "t", c->spec.disk_bytes)
GETTER(timeout_usec, "t", c->spec.timeout_usec)
GETTER(host_address, "s", strempty(c->address))
GETTER(status_code, "s", c->start_fault.code != FAULT_NONE ? fault_wire_name(c->start_fault.code) : "")
GETTER(leader, "u", (uint32_t) c->monitor_pid)
GETTER(vmm_pid, "u", (uint32_t) c->vmm_pid)
GETTER(agent_version, "s", strempty(c->agent_version))
GETTER(boot_mode, "s", "cold")
GETTER(reason, "s", c->reason == END_NONE ? "" : end_reason_to_string(c->reason))
GETTER(message, "s", strempty(c->message))
GETTER(created, "t", c->created_usec)
GETTER(started, "t", c->started_usec)
GETTER(active, "t", c->active_usec)
GETTER(updated, "t", c->updated_usec)
GETTER(memory_current, "t", capsule_memory_current(c))
GETTER(disk_usage, "t", capsule_disk_usage(c))

static int property_get_labels(sd_bus *bus, const char *path, const char *interface, const char *property,
                               sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Capsule *c = userdata;

        return bus_append_string_map(reply, c->spec.labels);
}

/* --- methods; each takes the capsule by reference and by the shared functions of bus-capsules.c
 * -------------------------- */

static int method_destroy(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Capsule *c = userdata;

        return bus_capsule_destroy(bus_capsule_server(c), m, c->id, error);
}

static int method_ping(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Capsule *c = userdata;

        return bus_capsule_ping(bus_capsule_server(c), m, c->id, error);
}

static int method_open_channel(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_close_ int fd = -EBADF;
        Capsule *c = userdata;
        int r;

        r = bus_read_options(m, NULL, NULL, &caller, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        r = bus_capsule_authorize(bus_capsule_server(c), m, c, "exec", &caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_open_channel(c, &fd, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        return sd_bus_reply_method_return(m, "h", fd);
}

static void on_console(Capsule *c, int r, int fd, const Fault *fault, void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = userdata;

        if (r < 0)
                bus_reply_fault(m, r, fault);
        else
                (void) sd_bus_reply_method_return(m, "h", fd);
}

static int method_open_console(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = userdata;
        int r;

        r = bus_capsule_authorize(bus_capsule_server(c), m, c, "exec", &caller, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = capsule_open_console(c, on_console, m, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);
        sd_bus_message_ref(m);
        return 1;
}

#define CONST  SD_BUS_VTABLE_PROPERTY_CONST
#define EMITS  SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE
#define METHOD SD_BUS_VTABLE_UNPRIVILEGED

static const sd_bus_vtable capsule_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Destroy", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_destroy,
                                METHOD),
        SD_BUS_METHOD_WITH_ARGS("Ping", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_ping,
                                METHOD),
        SD_BUS_METHOD_WITH_ARGS("OpenChannel", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("h", channel),
                                method_open_channel, METHOD),
        SD_BUS_METHOD_WITH_ARGS("OpenConsole", SD_BUS_NO_ARGS, SD_BUS_RESULT("h", console),
                                method_open_console, METHOD),
        SD_BUS_SIGNAL_WITH_ARGS("ProcessExited", SD_BUS_ARGS("u", pid, "s", tag, "i", code, "s", reason), 0),
        SD_BUS_PROPERTY("Id", "s", property_get_id, 0, CONST),
        SD_BUS_PROPERTY("Name", "s", property_get_name, 0, EMITS),
        SD_BUS_PROPERTY("Template", "s", property_get_template, 0, CONST),
        SD_BUS_PROPERTY("Team", "s", property_get_team, 0, CONST),
        SD_BUS_PROPERTY("OwnerUID", "u", property_get_owner_uid, 0, CONST),
        SD_BUS_PROPERTY("Unit", "s", property_get_unit, 0, CONST),
        SD_BUS_PROPERTY("Backend", "s", property_get_backend, 0, EMITS),
        SD_BUS_PROPERTY("Isolation", "s", property_get_isolation, 0, EMITS),
        SD_BUS_PROPERTY("State", "s", property_get_state, 0, EMITS),
        SD_BUS_PROPERTY("Labels", "a{ss}", property_get_labels, 0, EMITS),
        SD_BUS_PROPERTY("VCPUs", "u", property_get_vcpus, 0, EMITS),
        SD_BUS_PROPERTY("MemoryBytes", "t", property_get_memory_bytes, 0, EMITS),
        SD_BUS_PROPERTY("DiskBytes", "t", property_get_disk_bytes, 0, EMITS),
        SD_BUS_PROPERTY("TimeoutUSec", "t", property_get_timeout_usec, 0, EMITS),
        SD_BUS_PROPERTY("HostAddress", "s", property_get_host_address, 0, EMITS),
        SD_BUS_PROPERTY("Leader", "u", property_get_leader, 0, EMITS),
        SD_BUS_PROPERTY("VMMPID", "u", property_get_vmm_pid, 0, EMITS),
        SD_BUS_PROPERTY("AgentVersion", "s", property_get_agent_version, 0, EMITS),
        SD_BUS_PROPERTY("BootMode", "s", property_get_boot_mode, 0, EMITS),
        SD_BUS_PROPERTY("TerminationReason", "s", property_get_reason, 0, EMITS),
        SD_BUS_PROPERTY("StatusMessage", "s", property_get_message, 0, EMITS),
        SD_BUS_PROPERTY("StatusCode", "s", property_get_status_code, 0, EMITS),
        SD_BUS_PROPERTY("CreatedTimestamp", "t", property_get_created, 0, CONST),
        SD_BUS_PROPERTY("StartedTimestamp", "t", property_get_started, 0, EMITS),
        SD_BUS_PROPERTY("LastActiveTimestamp", "t", property_get_active, 0, EMITS),
        SD_BUS_PROPERTY("LastUpdatedTimestamp", "t", property_get_updated, 0, EMITS),
        SD_BUS_PROPERTY("MemoryCurrent", "t", property_get_memory_current, 0, 0),
        SD_BUS_PROPERTY("DiskUsage", "t", property_get_disk_usage, 0, 0),
        SD_BUS_VTABLE_END,
};

/* --- objects --------------------------------------------------------------------------------- */

static int find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret,
                sd_bus_error *error) {
        _cleanup_free_ char *id = NULL;
        BusServer *s = userdata;
        Capsule *c;
        int r;

        r = bus_object_name(path, bus_noun_capsule.kind, &id);
        if (r <= 0)
                return r;
        c = hashmap_get(s->manager->capsules, id);
        if (!c)
                return 0;
        *ret = c;
        return 1;
}

static int enumerate(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error) {
        _cleanup_strv_ char **paths = NULL;
        BusServer *s = userdata;
        Capsule *c;
        int r;

        HASHMAP_FOREACH(c, s->manager->capsules) {
                char *path;

                r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
                if (r >= 0)
                        r = strv_consume(&paths, path);
                if (r < 0)
                        return r;
        }

        *ret = TAKE_PTR(paths);
        return 0;
}

static const sd_bus_vtable *const vtables[] = {
        capsule_vtable,
        bus_capsule_process_vtable,
        bus_capsule_file_vtable,
        NULL,
};

const BusNoun bus_noun_capsule = {
        .kind = "capsule",
        .interface = BUS_NAME ".Capsule",
        .vtables = vtables,
        .find = find,
        .enumerate = enumerate,
};

/* --- events ---------------------------------------------------------------------------------- */

void bus_capsule_changed(Capsule *c, const char *const *properties, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        if (r >= 0)
                r = sd_bus_emit_properties_changed_strv(s->bus, path, bus_noun_capsule.interface,
                                                        (char **) properties);
        if (r < 0)
                log_capsule(c->id, LOG_WARNING, r, "Failed to tell of a change, ignoring: %m");
}

void bus_process_exited(Capsule *c, uint32_t pid, const char *tag, int code, const char *reason,
                        void *userdata) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *signal = NULL;
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path(bus_noun_capsule.kind, c->id, &path);
        if (r >= 0)
                r = sd_bus_message_new_signal(s->bus, &signal, path, bus_noun_capsule.interface,
                                              "ProcessExited");
        if (r >= 0)
                r = sd_bus_message_append(signal, "usis", pid, tag, (int32_t) code, reason);
        if (r >= 0)
                r = bus_server_tell(s, signal);
        if (r < 0)
                log_capsule(c->id, LOG_WARNING, r, "Failed to tell of the end of a process, ignoring: %m");
}
