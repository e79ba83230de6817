/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Start-up: what the database says, what PID 1 runs and what each monitor tells are joined (threats.md
 * §2.4). The record is intent, scope and monitor are reality. Whatever does not fit is taken down by the
 * stop flow, so that afterwards there is nothing that nobody knows.
 */

#include "daemon/core/manager.h"

/* Runs once, from the event loop, when every capsule is adopted or gone. r < 0: PID 1 could not be asked. */
typedef void (*AdoptDone)(Manager *m, int r, unsigned n_adopted, unsigned n_removed, void *userdata);

/* Loads the records (before the network slots start) and begins. m->systemd must be set. 0 or -errno. */
int manager_adopt(Manager *m, AdoptDone done, void *userdata, Fault *reterr);
/* Cancels; done never runs. */
void manager_adopt_cancel(Manager *m);

/* From now on: looks every SWEEP_USEC after monitors that lost their connection. */
int manager_start_sweep(Manager *m);
