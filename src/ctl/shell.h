/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/ctl.h"

/* A terminal of the capsule in ours, with a command (none: the user's shell) in it. user: NULL or "": the
 * default one. The exit status of the verb. */
int shell_run(Ctl *ctl, const char *id, const char *path, const char *user, char *const *command);
