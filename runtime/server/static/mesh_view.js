// The predicted mesh in three dimensions, by three.js, in the colours and the light that the service draws with.

import * as THREE from "./three/three.module.js";
import { GLTFLoader } from "./three/GLTFLoader.js";
import { OrbitControls } from "./three/OrbitControls.js";

const MARGIN = 1.15; // how much more than the mesh's bounding sphere is seen, as in the service's pictures
const STEP = Math.PI / 18;
const ZOOM = 1.15;
const TURN_SPEED = 4; // 15 seconds a turn

export class MeshView {
  /** Fills `container`. Throws an Error with a sentence where there is no WebGL. */
  constructor(container) {
    this.container = container;
    try {
      this.renderer = new THREE.WebGLRenderer({ antialias: true });
    } catch {
      throw new Error("this browser has no WebGL.");
    }
    // The model shades stored colours as they are, and so does this: no conversion on the way in or out.
    this.renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setClearColor(0xffffff);
    this.renderer.domElement.setAttribute("aria-hidden", "true");
    container.append(this.renderer.domElement);

    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera();
    this.ambient = new THREE.AmbientLight();
    this.source = new THREE.DirectionalLight();
    this.scene.add(this.ambient, this.source);
    this.controls = new OrbitControls(this.camera, this.renderer.domElement);
    this.controls.enablePan = false;
    this.controls.autoRotateSpeed = TURN_SPEED;
    this.controls.addEventListener("change", () => this.#draw());
    this.light([1, 0, 0, 0]);

    new ResizeObserver(() => this.#resize()).observe(container);
    this.renderer.setAnimationLoop(() => this.controls.autoRotate && this.controls.update());
  }

  set turning(on) {
    this.controls.autoRotate = on;
  }

  /** Replace what is shown by the mesh of a GLB file. */
  async show(glb) {
    const { scene } = await new GLTFLoader().parseAsync(glb, "");
    this.mesh?.traverse(free);
    if (this.mesh) this.scene.remove(this.mesh);
    this.mesh = scene;
    scene.traverse((node) => node.isMesh && this.#shade(node));
    this.scene.add(scene);
    const box = new THREE.Box3().setFromObject(scene, true);
    this.center = box.getCenter(new THREE.Vector3());
    this.radius = Math.max(radiusAround(scene, this.center), 1e-6);
    this.#resize();
  }

  /** Look from `azimuth` around the vertical axis and `elevation` above, with a vertical opening angle; degrees. */
  look(azimuth, elevation, fov) {
    const [a, e, half] = [azimuth, elevation, fov / 2].map(THREE.MathUtils.degToRad);
    const distance = (MARGIN * this.radius) / Math.sin(half);
    this.camera.fov = fov;
    this.camera.near = distance / 100;
    this.camera.far = distance * 10;
    this.camera.position
      .set(Math.cos(e) * Math.sin(a), Math.sin(e), Math.cos(e) * Math.cos(a))
      .multiplyScalar(distance)
      .add(this.center);
    this.controls.target.copy(this.center);
    this.camera.updateProjectionMatrix();
    this.controls.update();
    this.#draw();
  }

  /** ambient, then the vector towards the source, whose length is its intensity; world space. */
  light([ambient, x, y, z]) {
    // three.js divides what a matt surface reflects by pi.
    this.ambient.intensity = ambient * Math.PI;
    this.source.intensity = Math.hypot(x, y, z) * Math.PI;
    this.source.position.set(x, y, z);
    this.#draw();
  }

  /** Turn or zoom as a key says; whether it says anything. */
  key(name) {
    const steps = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    const zooms = { "+": 1 / ZOOM, "=": 1 / ZOOM, "-": ZOOM };
    if (!(name in steps || name in zooms)) return false;
    const offset = this.camera.position.clone().sub(this.controls.target);
    const place = new THREE.Spherical().setFromVector3(offset);
    const [around, down] = steps[name] ?? [0, 0];
    place.theta += around;
    place.phi += down;
    place.radius *= zooms[name] ?? 1;
    place.makeSafe();
    this.camera.position.setFromSpherical(place).add(this.controls.target);
    this.controls.update();
    this.#draw();
    return true;
  }

  #shade(mesh) {
    const texture = mesh.material.map;
    if (texture) texture.colorSpace = THREE.NoColorSpace;
    const matt = new THREE.MeshLambertMaterial({ map: texture, side: THREE.DoubleSide });
    mesh.material.dispose();
    mesh.material = matt;
    if (!mesh.geometry.attributes.normal) mesh.geometry.computeVertexNormals();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.container;
    if (!clientWidth || !clientHeight) return;
    this.renderer.setSize(clientWidth, clientHeight, false);
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.updateProjectionMatrix();
    this.#draw();
  }

  #draw() {
    this.renderer.render(this.scene, this.camera);
  }
}

function radiusAround(scene, center) {
  let radius = 0;
  const point = new THREE.Vector3();
  scene.traverse((node) => {
    const positions = node.geometry?.attributes.position;
    for (let index = 0; index < (positions?.count ?? 0); index++) {
      radius = Math.max(radius, node.getVertexPosition(index, point).applyMatrix4(node.matrixWorld).distanceTo(center));
    }
  });
  return radius;
}

function free(node) {
  node.geometry?.dispose();
  node.material?.map?.dispose();
  node.material?.dispose();
}
