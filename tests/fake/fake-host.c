/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "daemon/core/vmm.h"
#include "daemon/host/scope.h"
#include "daemon/host/slot.h"
#include "shared/event.h"
#include "tests/fake/fake-host.h"

#define UNITS_MAX 32U

FakeFailure fake_failure;
unsigned fake_n_slots, fake_n_units;
static const char *vmm_directory = "/nonexistent";

/* --- PID 1 ----------------------------------------------------------------------------------- */

typedef struct Unit {
        char name[128];
        pid_t pid;
} Unit;

struct Systemd {
        sd_event *event;
        Unit units[UNITS_MAX];
};

typedef enum CallKind {
        CALL_UNIT,
        CALL_LIST,
        CALL_STRING,
} CallKind;

struct UnitCall {
        Systemd *systemd;
        sd_event_source *defer;
        CallKind kind;
        int result;
        UnitDone done;
        UnitListDone list_done;
        UnitPropertyDone get_done;
        void *userdata;
};

Systemd* fake_systemd_new(sd_event *e) {
        Systemd *s = calloc(1, sizeof(Systemd));

        s->event = e;
        fake_n_units = 0;
        return s;
}

void fake_systemd_free(Systemd *s) {
        free(s);
}

static Unit* find_unit(Systemd *s, const char *name) {
        for (size_t i = 0; i < UNITS_MAX; i++)
                if (streq(s->units[i].name, name))
                        return s->units + i;
        return NULL;
}

void fake_systemd_add_unit(Systemd *s, const char *name, pid_t pid) {
        Unit *u = find_unit(s, "");

        assert(u);
        (void) snprintf(u->name, sizeof(u->name), "%s", name);
        u->pid = pid;
        fake_n_units++;
}

static int on_defer(sd_event_source *source, void *userdata) {
        static const Fault failed = { .code = FAULT_BACKEND_UNAVAILABLE,
                                      .message = (char *) "The job failed." };
        UnitInfo infos[UNITS_MAX];
        UnitCall *c = userdata;
        size_t n = 0;

        switch (c->kind) {
        case CALL_UNIT:
                c->done(c, c->result, c->result < 0 ? &failed : NULL, c->userdata);
                break;
        case CALL_LIST:
                for (size_t i = 0; i < UNITS_MAX; i++)
                        if (c->systemd->units[i].name[0])
                                infos[n++] = (UnitInfo) { c->systemd->units[i].name, "active", "running" };
                c->list_done(c, 0, infos, n, c->userdata);
                break;
        case CALL_STRING:
                c->get_done(c, 0, "success", c->userdata);
                break;
        }
        return 0;
}

static UnitCall* call_new(Systemd *s, CallKind kind, int result, void *userdata) {
        UnitCall *c = calloc(1, sizeof(UnitCall));

        *c = (UnitCall) { .systemd = s, .kind = kind, .result = result, .userdata = userdata };
        (void) event_defer(s->event, &c->defer, PRIORITY_CLIENT, on_defer, c);
        return c;
}

UnitCall* unit_call_free(UnitCall *c) {
        if (!c)
                return NULL;
        event_source_free(c->defer);
        free(c);
        return NULL;
}

int scope_start(Systemd *s, const char *unit, const ScopeSpec *spec, UnitDone done, void *userdata,
                UnitCall **ret) {
        if (fake_failure == FAKE_SCOPE_CALL)
                return -ECONNRESET;
        if (fake_failure != FAKE_SCOPE_JOB)
                fake_systemd_add_unit(s, unit, spec->pid);
        *ret = call_new(s, CALL_UNIT, fake_failure == FAKE_SCOPE_JOB ? -EREMOTEIO : 0, userdata);
        (*ret)->done = done;
        return 0;
}

int systemd_start_transient(Systemd *s, const char *unit, UnitFill fill, void *fill_userdata, UnitDone done,
                            void *userdata, UnitCall **ret) {
        return -ENOTCONN;
}

int systemd_stop_unit(Systemd *s, const char *unit, UnitDone done, void *userdata, UnitCall **ret) {
        Unit *u = find_unit(s, unit);

        if (u) {
                (void) kill(u->pid, SIGKILL);
                *u = (Unit) {};
                fake_n_units--;
        }
        *ret = call_new(s, CALL_UNIT, 0, userdata);
        (*ret)->done = done;
        return 0;
}

int systemd_kill_unit(Systemd *s, const char *unit, int signal) {
        Unit *u = find_unit(s, unit);

        return u ? kill(u->pid, signal) : -ENOENT;
}

int systemd_reset_failed(Systemd *s, const char *unit) {
        return 0;
}

int systemd_abandon_scope(Systemd *s, const char *unit) {
        return 0;
}

int systemd_unref_unit(Systemd *s, const char *unit) {
        return 0;
}

int systemd_list_units(Systemd *s, const char *pattern, UnitListDone done, void *userdata, UnitCall **ret) {
        *ret = call_new(s, CALL_LIST, 0, userdata);
        (*ret)->list_done = done;
        return 0;
}

int systemd_get_string(Systemd *s, const char *unit, const char *interface, const char *property,
                       UnitPropertyDone done, void *userdata, UnitCall **ret) {
        *ret = call_new(s, CALL_STRING, 0, userdata);
        (*ret)->get_done = done;
        return 0;
}

sd_bus* systemd_bus(Systemd *s) {
        return NULL;
}

/* --- slots ----------------------------------------------------------------------------------- */

struct Slot {
        unsigned index;
        int netns_fd;
};

static SlotPool *const the_pool = (SlotPool *) 1;

int slot_pool_new(sd_event *e, const SlotPoolConfig *c, SlotPool **ret, Fault *reterr) {
        *ret = the_pool;
        return 0;
}

SlotPool* slot_pool_free(SlotPool *p) {
        return NULL;
}

int slot_pool_claim(SlotPool *p, Slot **ret, Fault *reterr) {
        static unsigned last;

        if (fake_failure == FAKE_SLOT)
                return fault_set(reterr, FAULT_NO_CAPACITY, "No slot.");
        *ret = calloc(1, sizeof(Slot));
        **ret = (Slot) { ++last, open("/dev/null", O_RDWR | O_CLOEXEC) };
        fake_n_slots++;
        return 0;
}

int slot_pool_adopt(SlotPool *p, unsigned index, Slot **ret) {
        *ret = calloc(1, sizeof(Slot));
        **ret = (Slot) { index, -EBADF };
        fake_n_slots++;
        return 0;
}

Slot* slot_release(Slot *s) {
        if (!s)
                return NULL;
        close_fd(s->netns_fd);
        free(s);
        fake_n_slots--;
        return NULL;
}

int slot_netns_fd(Slot *s) {
        return s->netns_fd;
}

int slot_take_tap_fd(Slot *s) {
        return open("/dev/null", O_RDWR | O_CLOEXEC);
}

unsigned slot_index(const Slot *s) {
        return s->index;
}

const char* slot_address(const Slot *s) {
        return "10.11.0.3";
}

/* --- VMM ------------------------------------------------------------------------------------- */

struct VmmProbe {
        char *launcher, *monitor;
};

void fake_vmm_set_directory(const char *path) {
        vmm_directory = path;
}

int vmm_probe_new(Manager *m, VmmProbe **ret) {
        *ret = calloc(1, sizeof(VmmProbe));
        **ret = (VmmProbe) { strjoin(vmm_directory, "/wrenn-launch"),
                             strjoin(vmm_directory, "/wrenn-monitor") };
        return 0;
}

VmmProbe* vmm_probe_free(VmmProbe *p) {
        if (p) {
                free(p->launcher);
                free(p->monitor);
        }
        free(p);
        return NULL;
}

void vmm_probe_refresh(VmmProbe *p) {
}

int vmm_choose_accelerator(VmmProbe *p, Accelerator *ret, Fault *reterr) {
        *ret = ACCELERATOR_TCG;
        return 0;
}

int vmm_choose(VmmProbe *p, VmmChoice *ret, Fault *reterr) {
        if (fake_failure == FAKE_CHOICE)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "No VMM.");
        *ret = (VmmChoice) { .accelerator = ACCELERATOR_TCG,
                             .program = "/vmm",
                             .launcher = p->launcher,
                             .monitor = p->monitor };
        return 0;
}

char** vmm_backends(VmmProbe *p) {
        return NULL;
}

const char* vmm_isolation(VmmProbe *p) {
        return "emulated";
}

int vmm_find_kernel(VmmProbe *p, char **ret_kernel, char **ret_initrd, Fault *reterr) {
        if (fake_failure == FAKE_KERNEL)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "No kernel.");
        *ret_kernel = strdup("/k");
        *ret_initrd = strdup("/i");
        return 0;
}

uint64_t vmm_tsc_khz(VmmProbe *p) {
        return 0;
}
