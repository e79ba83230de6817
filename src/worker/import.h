/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Job "import-template": any root file system tar becomes a template, unchanged. Runs as root of a user
 * namespace. Request: "directory" where rootfs.erofs goes, "scratch" where it is unpacked ("/var/tmp"),
 * "compression" ("none"); the archive is the fd that came with the request, or "file", a path. Result:
 * {"rootfs","size","digest"}.
 */

#include "worker/worker.h"

/* Member of the request that main() sets to the fd passed along with it. */
#define WORKER_FD_MEMBER "fd"

int worker_import_template(json_t *request, const WorkerProgress *progress, json_t **ret, Fault *reterr);
