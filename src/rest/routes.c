/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every route there is (api.md §2.0). */

#include "basic/limits.h"
#include "rest/rest.h"

const RestRoute rest_routes[] = {
        { HTTP_METHOD_GET, "/health", rest_health_get, HTTP_BODY_MAX, .open = true },
        { HTTP_METHOD_GET, "/v1/health", rest_health_get, HTTP_BODY_MAX, .open = true },
        { HTTP_METHOD_GET, "/openapi.yaml", rest_openapi_get, HTTP_BODY_MAX, .open = true },
        { HTTP_METHOD_GET, "/docs", rest_docs_get, HTTP_BODY_MAX, .open = true },
        { HTTP_METHOD_POST, "/v1/capsules", rest_capsules_create, HTTP_BODY_MAX },
        { HTTP_METHOD_GET, "/v1/capsules", rest_capsules_list, HTTP_BODY_MAX },
        { HTTP_METHOD_GET, "/v1/capsules/{}", rest_capsule_get, HTTP_BODY_MAX, .capsule = true },
        { HTTP_METHOD_DELETE, "/v1/capsules/{}", rest_capsule_delete, HTTP_BODY_MAX, .capsule = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/ping", rest_capsule_ping, HTTP_BODY_MAX, .capsule = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/exec", rest_capsule_exec, HTTP_EXEC_BODY_MAX, .capsule = true },
        { HTTP_METHOD_GET, "/v1/capsules/{}/processes", rest_processes_list, HTTP_BODY_MAX,
          .capsule = true },
        { HTTP_METHOD_DELETE, "/v1/capsules/{}/processes/{}", rest_process_kill, HTTP_BODY_MAX,
          .capsule = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/read", rest_files_read, HTTP_BODY_MAX, .capsule = true,
          .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/list", rest_files_list, HTTP_BODY_MAX, .capsule = true,
          .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/mkdir", rest_files_mkdir, HTTP_BODY_MAX, .capsule = true,
          .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/remove", rest_files_remove, HTTP_BODY_MAX,
          .capsule = true, .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/stat", rest_files_stat, HTTP_BODY_MAX, .capsule = true,
          .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/rename", rest_files_rename, HTTP_BODY_MAX,
          .capsule = true, .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/stream/read", rest_files_read, HTTP_BODY_MAX,
          .capsule = true, .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/tar/read", rest_files_tar_read, HTTP_BODY_MAX,
          .capsule = true, .direct = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/write", rest_files_write, FILE_WRITE_BODY_MAX,
          .capsule = true, .direct = true, .upload = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/stream/write", rest_files_stream_write, UINT64_MAX,
          .capsule = true, .direct = true, .upload = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/files/tar/write", rest_files_tar_write, UINT64_MAX,
          .capsule = true, .direct = true, .upload = true },
        {},
};
