# What a C or C++ project of somebody else needs: headers, CMake's targets dibr::dibr and dibr::runtime, and files for
# pkg-config. All of it is of the component development, which the wheel leaves out; libraries are of the component
# runtime, which the wheel takes too.
include(CMakePackageConfigHelpers)

set(DIBR_INSTALL_CMAKEDIR "${DIBR_INSTALL_LIBDIR}/cmake/dibr")

set(headers renderer.hpp cameras.hpp thread_pool.hpp error.hpp)
if(DIBR_RUNTIME)
  list(APPEND headers runtime.h runtime.hpp)
endif()
list(TRANSFORM headers PREPEND "${PROJECT_SOURCE_DIR}/runtime/cpp/include/dibr/")
install(FILES ${headers} DESTINATION ${DIBR_INSTALL_INCLUDEDIR}/dibr COMPONENT development)

install(EXPORT dibrTargets NAMESPACE dibr:: DESTINATION ${DIBR_INSTALL_CMAKEDIR} COMPONENT development)
configure_package_config_file(cmake/dibrConfig.cmake.in "${PROJECT_BINARY_DIR}/dibrConfig.cmake"
  INSTALL_DESTINATION ${DIBR_INSTALL_CMAKEDIR} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change what the last one promised.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/dibrConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/dibrConfig.cmake" "${PROJECT_BINARY_DIR}/dibrConfigVersion.cmake"
  DESTINATION ${DIBR_INSTALL_CMAKEDIR} COMPONENT development)

# Relative to the file itself, so that a prefix may be moved.
file(RELATIVE_PATH DIBR_PREFIX_FROM_PKGCONFIG "/${DIBR_INSTALL_LIBDIR}/pkgconfig" "/")
set(pkgconfig_files dibr)
if(DIBR_RUNTIME)
  list(APPEND pkgconfig_files dibr-runtime)
endif()
foreach(name IN LISTS pkgconfig_files)
  configure_file(cmake/${name}.pc.in "${PROJECT_BINARY_DIR}/${name}.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/${name}.pc" DESTINATION ${DIBR_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
endforeach()
