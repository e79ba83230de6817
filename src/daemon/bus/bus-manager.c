/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The Manager's properties and Reload. The methods of each noun are in the noun's file. */

#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-server.h"
#include "daemon/core/vmm.h"

#define GETTER(name, signature, value)                                                              \
        static int property_get_##name(sd_bus *bus, const char *path, const char *interface,        \
                                       const char *property, sd_bus_message *reply, void *userdata, \
                                       sd_bus_error *error) {                                       \
                const Manager *m = ((BusServer *) userdata)->manager;                               \
                                                                                                    \
                return sd_bus_message_append(reply, signature, value);                              \
        }

GETTER(isolation, "s", vmm_isolation(m->vmm))
GETTER(n_capsules, "u", m->n_capsules)
GETTER(n_running, "u", m->n_running)
GETTER(vcpus_reserved, "u", m->vcpus_reserved)
GETTER(memory_reserved, "t", m->memory_reserved)
GETTER(memory_budget, "t", m->config.memory_budget_bytes)
GETTER(default_template, "s", m->config.default_template)

static int property_get_version(sd_bus *bus, const char *path, const char *interface, const char *property,
                                sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append(reply, "s", WRENN_VERSION);
}

static int property_get_features(sd_bus *bus, const char *path, const char *interface, const char *property,
                                 sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append(reply, "as", 4, "cold-boot", "exec", "channel", "console");
}

static int property_get_backends(sd_bus *bus, const char *path, const char *interface, const char *property,
                                 sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        BusServer *s = userdata;
        _cleanup_strv_ char **v = vmm_backends(s->manager->vmm);

        return sd_bus_message_append_strv(reply, v);
}

static int property_get_limits(sd_bus *bus, const char *path, const char *interface, const char *property,
                               sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Config *c = &((BusServer *) userdata)->manager->config;
        uint64_t overhead = c->memory_overhead_bytes, budget = c->memory_budget_bytes;

        return sd_bus_message_append(reply, "a{st}", 7, "VCPUsMax", (uint64_t) VCPUS_MAX, "MemoryBytesMax",
                                     MIN(MEMORY_BYTES_MAX, budget > overhead ? budget - overhead : 0),
                                     "DefaultVCPUs", (uint64_t) c->default_vcpus, "DefaultMemoryBytes",
                                     c->default_memory_bytes, "DefaultDiskBytes", c->default_disk_bytes,
                                     "MaxExecUSec", c->exec_max_usec, "CapsulesMax",
                                     (uint64_t) c->capsules_max);
}

static int method_reload(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = userdata;
        int r;

        r = bus_authorize(s, m, "manage-daemon", (const char *const[]) { "verb", "reload", NULL }, &caller,
                          error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = manager_reload(s->manager, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : sd_bus_reply_method_return(m, NULL);
}

#define CONST SD_BUS_VTABLE_PROPERTY_CONST
#define EMITS SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE

const sd_bus_vtable bus_manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Reload", NULL, NULL, method_reload, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Version", "s", property_get_version, 0, CONST),
        SD_BUS_PROPERTY("Features", "as", property_get_features, 0, CONST),
        SD_BUS_PROPERTY("Backends", "as", property_get_backends, 0, EMITS),
        SD_BUS_PROPERTY("Isolation", "s", property_get_isolation, 0, EMITS),
        SD_BUS_PROPERTY("NCapsules", "u", property_get_n_capsules, 0, EMITS),
        SD_BUS_PROPERTY("NRunning", "u", property_get_n_running, 0, EMITS),
        SD_BUS_PROPERTY("VCPUsReserved", "u", property_get_vcpus_reserved, 0, EMITS),
        SD_BUS_PROPERTY("MemoryReserved", "t", property_get_memory_reserved, 0, EMITS),
        SD_BUS_PROPERTY("MemoryBudget", "t", property_get_memory_budget, 0, EMITS),
        SD_BUS_PROPERTY("DefaultTemplate", "s", property_get_default_template, 0, EMITS),
        SD_BUS_PROPERTY("Limits", "a{st}", property_get_limits, 0, EMITS),
        SD_BUS_VTABLE_END,
};

void bus_manager_changed(Manager *m, const char *const *properties, void *userdata) {
        BusServer *s = userdata;
        int r;

        r = sd_bus_emit_properties_changed_strv(s->bus, BUS_PATH, BUS_NAME ".Manager", (char **) properties);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to tell of changed figures, ignoring: %m");
}
