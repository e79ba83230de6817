/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Stands in for host/systemd.c, host/slot.c and core/vmm.c: link it before the daemon's libraries. PID 1
 * here is a table of units, each with one process; calls end in the next turn of the loop.
 */

#include <systemd/sd-event.h>

#include "daemon/host/systemd.h"

typedef enum FakeFailure {
        FAKE_NOTHING,
        FAKE_SLOT,       /* no slot can be claimed */
        FAKE_CHOICE,     /* no VMM */
        FAKE_KERNEL,     /* no kernel */
        FAKE_SCOPE_CALL, /* StartTransientUnit cannot be sent */
        FAKE_SCOPE_JOB,  /* its job fails */
        _FAKE_FAILURE_MAX,
} FakeFailure;

extern FakeFailure fake_failure;
extern unsigned fake_n_slots; /* out now */
extern unsigned fake_n_units; /* active now */

Systemd* fake_systemd_new(sd_event *e);
void fake_systemd_free(Systemd *s);
/* A unit as if it had been started in an earlier life. */
void fake_systemd_add_unit(Systemd *s, const char *name, pid_t pid);
/* Where wrenn-launch and wrenn-monitor are. */
void fake_vmm_set_directory(const char *path);
