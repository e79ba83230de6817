/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Job "build-template": a root file system from the distribution's signed packages, by mmdebstrap with the
 * host's apt sources. Runs as root of a user namespace, never as root of the host. Request: "directory"
 * where rootfs.erofs goes           "scratch"      where the tree is made ("/var/tmp") "suite"          "" =
 * the host's release           "variant"      of mmdebstrap ("minbase") "packages"       more packages
 * "exclude_paths", "include_paths"  of dpkg, patterns "default_user"   "root", or a user to make "hostname"
 * of /etc/hostname ("capsule") "compression"    "none", "lz4", "lz4hc" Result:
 * {"rootfs","size","digest","suite","packages":["bash=5.2…",…]}.
 */

#include "worker/worker.h"

int worker_build_template(json_t *request, const WorkerProgress *progress, json_t **ret, Fault *reterr);

/* How far mmdebstrap is, told from its output line by line; never goes back. */
typedef struct BuildProgress {
        const WorkerProgress *progress;
        unsigned stage;           /* index of the stage mmdebstrap announced last */
        unsigned n_total, n_done; /* of this stage: packages apt announced, and packages seen */
        double fraction;
        const char *step;
} BuildProgress;

/* Takes one line of the output of mmdebstrap --verbose. */
void build_progress_line(BuildProgress *b, const char *line);
