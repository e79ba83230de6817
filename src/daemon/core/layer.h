/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The writable disk of a capsule: a sparse copy of an empty ext4 of its size. mke2fs makes one image a size,
 * in a process of its own, at the first use; the copy is FICLONE or some MiB of metadata. At most
 * LAYER_SIZES_MAX images are kept.
 */

#include "basic/fault.h"
#include "daemon/core/manager.h"

typedef struct LayerCall LayerCall;
/* As UnitDone. The call is freed by its owner. */
typedef void (*LayerDone)(LayerCall *call, int r, const Fault *fault, void *userdata);

int layer_cache_new(Manager *m, LayerCache **ret);
LayerCache* layer_cache_free(LayerCache *l);

/*
 * Makes sure there is an image of that size. 1: there is, done will not run; 0: done will run (start
 * contract); < 0 with reterr. size_bytes: a multiple of DISK_BYTES_STEP.
 */
int layer_cache_prepare(LayerCache *l, uint64_t size_bytes, LayerDone done, void *userdata, LayerCall **ret,
                        Fault *reterr);
/* Cancels: done never runs. Returns NULL. */
LayerCall* layer_call_free(LayerCall *c);

/* Copies the image of that size to name below dir_fd, owned by uid, mode 0600. FAULT_NO_SPACE; -ENOENT when
 * it was not prepared. */
int layer_cache_copy(LayerCache *l, uint64_t size_bytes, int dir_fd, const char *name, uid_t uid,
                     Fault *reterr);
