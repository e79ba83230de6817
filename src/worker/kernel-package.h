/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Gets the distribution's kernel package by apt from the host's own sources, signatures checked by apt, and
 * unpacks it. Nothing is installed, no script of the package runs, and nothing of the system's own apt state
 * is written.
 */

#include "basic/fault.h"
#include "basic/macro.h"
#include "worker/worker.h"

/*
 * package: the meta package ("linux-image-cloud-amd64"). scratch: a directory for everything. ret_root:
 * directory with boot/ and lib/modules/; ret_name: "linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64". Both
 * owned.
 */
int kernel_package_fetch(const char *package, const char *scratch, const WorkerProgress *progress,
                         char **ret_root, char **ret_name, Fault *reterr);

/* The package that the meta package depends on, from the output of "apt-cache depends"; NULL: none, or out
 * of memory. */
char* kernel_package_parse_depends(const char *text);
