# three.js beside the service's page, in wheels and editable installs; without it the page has no 3D view.

if(SKBUILD)
  dibr_find_headers(DIBR_PAGE three DIBR_THREE_DIR three.module.js)
  if(DIBR_PAGE)
    install(DIRECTORY "${DIBR_THREE_DIR}/" DESTINATION runtime/server/static/three COMPONENT runtime)
  endif()
endif()
