/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * PID 1 over D-Bus: transient units started, stopped, killed and asked about, all asynchronously; a call
 * ends when its job does (JobRemoved) and not when it is queued. The match is installed and Subscribe sent
 * before the first unit is started. A lost signal does not hang a call: after its timeout the unit's state
 * is looked at.
 */

#include <systemd/sd-bus.h>

#include "basic/fault.h"
#include "basic/macro.h"

typedef struct Systemd Systemd;
typedef struct UnitCall UnitCall;

#define UNIT_CALL_TIMEOUT_USEC (30 * USEC_PER_SEC)

typedef struct SystemdHandlers {
        /* A unit of ours went away (UnitRemoved), or its properties changed: look at it. */
        void (*on_unit_removed)(Systemd *s, const char *unit, void *userdata);
        /* PID 1 asks the controller of a scope to end it (systemctl stop). */
        void (*on_request_stop)(Systemd *s, const char *unit, void *userdata);
} SystemdHandlers;

/*
 * Subscribes to PID 1 on the system bus. bus: a reference is taken. handlers: borrowed.
 * 0 or -errno. Must run before the name is taken.
 */
int systemd_new(sd_bus *bus, const SystemdHandlers *handlers, void *userdata, Systemd **ret);
/* Calls still open are freed silently. */
Systemd* systemd_free(Systemd *s);
DEFINE_CLEANUP(Systemd, systemd_free)
sd_bus* systemd_bus(Systemd *s);

/*
 * The start contract of style.md §7. r: 0, or -errno with fault: -EEXIST (unit exists), -ETIMEDOUT,
 * -ECONNRESET (PID 1 gone), -ECANCELED, -EREMOTEIO (job failed).
 */
typedef void (*UnitDone)(UnitCall *call, int r, const Fault *fault, void *userdata);
/* Cancels the call, not the job: done never runs. Returns NULL. */
UnitCall* unit_call_free(UnitCall *c);
DEFINE_CLEANUP(UnitCall, unit_call_free)

/* Appends the properties, each "(sv)", to an open array. 0 or -errno of sd-bus. */
typedef int (*UnitFill)(sd_bus_message *m, void *fill_userdata);

/* StartTransientUnit(unit, "fail", properties by fill). done: when the job is done, i.e. the unit is active.
 */
int systemd_start_transient(Systemd *s, const char *unit, UnitFill fill, void *fill_userdata, UnitDone done,
                            void *userdata, UnitCall **ret);
/* StopUnit(unit, "replace"). A unit that is not there is success. done: when the unit is inactive. */
int systemd_stop_unit(Systemd *s, const char *unit, UnitDone done, void *userdata, UnitCall **ret);

/* Answers nothing: KillUnit(unit, "all", signal), ResetFailedUnit, Scope.Abandon, UnrefUnit. */
int systemd_kill_unit(Systemd *s, const char *unit, int signal);
int systemd_reset_failed(Systemd *s, const char *unit);
int systemd_abandon_scope(Systemd *s, const char *unit);
int systemd_unref_unit(Systemd *s, const char *unit);

typedef struct UnitInfo {
        const char *name;
        const char *active_state;
        const char *sub_state;
} UnitInfo;
typedef void (*UnitListDone)(UnitCall *call, int r, const UnitInfo *units, size_t n_units, void *userdata);
/* ListUnitsByPatterns(active or not, one pattern). units: borrowed, end with the callback. */
int systemd_list_units(Systemd *s, const char *pattern, UnitListDone done, void *userdata, UnitCall **ret);

typedef void (*UnitPropertyDone)(UnitCall *call, int r, const char *value, void *userdata);
/* A string property of a unit, e.g. of "org.freedesktop.systemd1.Scope" "Result" or "ControlGroup". */
int systemd_get_string(Systemd *s, const char *unit, const char *interface, const char *property,
                       UnitPropertyDone done, void *userdata, UnitCall **ret);
