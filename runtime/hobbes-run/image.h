// Bundles from container images, by skopeo(1), which knows registries and formats, and umoci(1),
// which unpacks layers.
#pragma once
#include <string>

#include "core/result.h"

namespace hobbes {

struct ImageOptions {
  std::string image;   ///< "alpine:3.19", or with a transport of skopeo's: "docker://...",
                       ///< "oci:FOLDER:TAG", "docker-archive:FILE", ...
  std::string folder;  ///< to be made, or empty
  unsigned cores = 0;  ///< for the bundle's hobbes object; 0: says nothing
  std::string memory;  ///< likewise, a size
  bool quiet = false;  ///< no account of the steps on standard error
};

/// Makes a bundle of a root file system and a configuration without a terminal, which `validate`
/// has found good. On failure the folder is as before. Errors: Code::not_found for a missing
/// program, with how to get it; Code::exists; what skopeo and umoci say.
Result<void> make_bundle_from_image(const ImageOptions& options);

}  // namespace hobbes
