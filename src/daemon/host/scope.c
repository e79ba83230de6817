/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "config.h"
#include "daemon/host/scope.h"

#define IO_WEIGHT UINT64_C(100)

static int add_devices(sd_bus_message *m, const ScopeSpec *spec) {
        int r;

        r = sd_bus_message_append(m, "(sv)", "DevicePolicy", "s", "closed");
        if (r >= 0)
                r = spec->kvm ? sd_bus_message_append(m, "(sv)", "DeviceAllow", "a(ss)", 2, "/dev/null",
                                                      "rw", "/dev/kvm", "rw")
                              : sd_bus_message_append(m, "(sv)", "DeviceAllow", "a(ss)", 1, "/dev/null",
                                                      "rw");
        return r;
}

static int add_limits(sd_bus_message *m, const ScopeSpec *spec) {
        int r;

        r = sd_bus_message_append(m, "(sv)(sv)(sv)", "MemoryMax", "t", spec->memory_max_bytes,
                                  "MemorySwapMax", "t", UINT64_C(0), "TasksMax", "t",
                                  (uint64_t) spec->tasks_max);
        if (r >= 0)
                r = sd_bus_message_append(m, "(sv)(sv)", "CPUQuotaPerSecUSec", "t",
                                          (uint64_t) spec->cpu_percent * (USEC_PER_SEC / 100), "IOWeight",
                                          "t", IO_WEIGHT);
        if (r >= 0 && spec->cpu_weight > 0)
                r = sd_bus_message_append(m, "(sv)", "CPUWeight", "t", (uint64_t) spec->cpu_weight);
        return r;
}

static int fill(sd_bus_message *m, void *userdata) {
        const ScopeSpec *spec = userdata;
        int r;

        r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "Description", "s", spec->description, "Slice", "s",
                                  spec->slice, "Controller", "s", BUS_NAME, "PIDs", "au", 1,
                                  (uint32_t) spec->pid);
        if (r >= 0)
                r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "TimeoutStopUSec", "t",
                                          spec->stop_timeout_usec, "CollectMode", "s", "inactive-or-failed",
                                          "OOMPolicy", "s", "kill", "AddRef", "b", 1);
        if (r >= 0)
                r = sd_bus_message_append(m, "(sv)", "After", "as", 2, "wrennd.service", "dbus.service");
        if (r >= 0)
                r = add_limits(m, spec);
        if (r >= 0)
                r = add_devices(m, spec);
        return r;
}

int scope_start(Systemd *s, const char *unit, const ScopeSpec *spec, UnitDone done, void *userdata,
                UnitCall **ret) {
        return systemd_start_transient(s, unit, fill, (void *) spec, done, userdata, ret);
}
