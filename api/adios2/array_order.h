// The format is row-major; programs in Fortran see the same array with its dimensions reversed.
#pragma once
#include <adios2/core/IO.h>
#include <adios2/helper/adiosFunctions.h>

#include <algorithm>

#include "format.h"

namespace hobbes::adios {

inline bool is_column_major(const adios2::core::IO& io) {
  return io.m_ArrayOrder == adios2::ArrayOrdering::ColumnMajor ||
         (io.m_ArrayOrder == adios2::ArrayOrdering::Auto &&
          !adios2::helper::IsRowMajor(io.m_HostLanguage));
}

inline Dimensions row_major(const adios2::core::IO& io, const adios2::Dims& dimensions) {
  Dimensions out(dimensions.begin(), dimensions.end());
  if (is_column_major(io)) std::reverse(out.begin(), out.end());
  return out;
}

inline adios2::Dims host_order(const adios2::core::IO& io, const Dimensions& dimensions) {
  adios2::Dims out(dimensions.begin(), dimensions.end());
  if (is_column_major(io)) std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace hobbes::adios
